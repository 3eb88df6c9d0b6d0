#include "control/rpc_status.h"

#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>

#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "core/printable_text.h"

namespace postcopy {
namespace {

constexpr const char* kAnsweredKey = "postcopy-answered";

static_assert(static_cast<int>(absl::StatusCode::kCancelled) == grpc::StatusCode::CANCELLED);
static_assert(static_cast<int>(absl::StatusCode::kAborted) == grpc::StatusCode::ABORTED);
static_assert(static_cast<int>(absl::StatusCode::kUnauthenticated) ==
              grpc::StatusCode::UNAUTHENTICATED);

// The innermost cause of what gRPC says about a connection: "failed to connect to all addresses;
// last error: UNKNOWN: ipv4:127.0.0.1:1: Failed to connect to remote host: Connection refused" ->
// "connection refused".
std::string CauseOf(const grpc::Status& status) {
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) return "no answer in time";
  if (status.error_code() == grpc::StatusCode::UNIMPLEMENTED) {
    return "does not know this call: another version, or no daemon";
  }
  std::string text = status.error_message();
  if (text.empty()) return absl::StrFormat("status %d", static_cast<int>(status.error_code()));
  if (absl::EqualsIgnoreCase(text, "socket closed")) return "it closed the connection";
  if (absl::EqualsIgnoreCase(text, "recvmsg:Connection timed out") ||
      absl::EqualsIgnoreCase(text, "keepalive watchdog timeout")) {
    return "the connection is lost, it has fallen silent";
  }
  const size_t colon = text.rfind(": ");
  if (absl::StartsWith(text, "failed to connect") && colon != std::string::npos) {
    text.erase(0, colon + 2);
  }
  // "Socket closed" and the like, but not an acronym.
  if (text.size() > 1 && absl::ascii_islower(static_cast<unsigned char>(text[1]))) {
    text[0] = absl::ascii_tolower(static_cast<unsigned char>(text[0]));
  }
  return text;
}

// `code` of a call that no daemon has answered: a proxy, or gRPC itself, made it up.
absl::StatusCode WithoutAnswer(absl::StatusCode code) {
  switch (code) {  // not our enum
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kDataLoss: return absl::StatusCode::kUnknown;
    default: return code;
  }
}

}  // namespace

grpc::Status Answer(grpc::ServerContext* context, const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  context->AddTrailingMetadata(kAnsweredKey, "1");
  std::string text = PrintableText({status.message().data(), status.message().size()});
  if (text.size() > kMaxErrorTextBytes) {
    text.resize(kMaxErrorTextBytes);
    text += " ...";
  }
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), text);
}

absl::Status Outcome(const grpc::ClientContext& context, const grpc::Status& status,
                     const std::string& callee) {
  if (status.ok()) return absl::OkStatus();
  const auto code = static_cast<absl::StatusCode>(status.error_code());
  if (context.GetServerTrailingMetadata().count(kAnsweredKey) > 0) {
    return absl::Status(code, PrintableText(status.error_message()));
  }
  return absl::Status(WithoutAnswer(code), absl::StrFormat("%s: %s", callee, PrintableText(CauseOf(status))));
}

}  // namespace postcopy
