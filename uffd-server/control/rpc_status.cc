#include "control/rpc_status.h"

#include <grpcpp/client_context.h>
#include <grpcpp/server_context.h>

#include <string_view>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/printable_text.h"

namespace postcopy {
namespace {

constexpr const char* kAnsweredKey = "postcopy-answered";

static_assert(static_cast<int>(absl::StatusCode::kCancelled) == grpc::StatusCode::CANCELLED);
static_assert(static_cast<int>(absl::StatusCode::kAborted) == grpc::StatusCode::ABORTED);
static_assert(static_cast<int>(absl::StatusCode::kUnauthenticated) ==
              grpc::StatusCode::UNAUTHENTICATED);

// `code` of a call that no daemon has answered: a proxy, or gRPC itself, made it up.
absl::StatusCode WithoutAnswer(absl::StatusCode code) {
  switch (code) {  // not our enum
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAborted:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kDataLoss: return absl::StatusCode::kUnknown;
    default: return code;
  }
}

// What gRPC says about a connection that could not be made, and what a user is told in its place.
struct Translation {
  std::string_view said;  // contained in it, in lower case
  const char* told;
};
constexpr const char* kNoAnswer =
    "no answer within 2 s (is uffd-server running there, is the port open?)";
constexpr const char* kAnotherProgram = "another program than uffd-server listens there";
constexpr Translation kTranslations[] = {
    {"handshaker shutdown", kNoAnswer},
    {"fd shutdown", kNoAnswer},
    {"connect timeout", kNoAnswer},
    {"timer expired", kNoAnswer},
    {"before receiving settings", "it accepts connections and says nothing: it hangs, or another "
                                  "program than uffd-server listens there"},
    {"http1", kAnotherProgram},
    {"http/2", kAnotherProgram},
    {"socket closed", "it closes connections at once: another program than uffd-server, or one that "
                      "expects TLS, listens there"},
    {"invalid argument", "invalid argument (a link-local address needs its interface: "
                         "[fe80::1%eth0])"},
    {"connection refused", "connection refused"},
    {"connection reset", "it closed the connection"},
    {"no route to host", "no route to host"},
    {"network is unreachable", "network is unreachable"},
};

// "nosuchhost:7700: C-ares status …" -> "nosuchhost".
std::string HostIn(std::string_view text) {
  text = text.substr(0, text.find(": "));
  return std::string(text.substr(0, text.rfind(':')));
}

}  // namespace

std::string CauseOfFailedCall(int code, std::string text) {
  if (code == grpc::StatusCode::DEADLINE_EXCEEDED) return "no answer in time";
  if (code == grpc::StatusCode::UNIMPLEMENTED) {
    return "does not know this call: another version, or another program than uffd-server";
  }
  if (text.empty()) return absl::StrFormat("status %d", code);
  constexpr std::string_view kDns = "DNS resolution failed for ";
  if (text.starts_with(kDns)) {
    return "unknown host name " + HostIn(std::string_view(text).substr(kDns.size()));
  }
  const std::string lower = absl::AsciiStrToLower(text);
  // "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: …"
  if (lower.starts_with("failed to connect")) {
    for (const Translation& each : kTranslations) {
      if (lower.find(each.said) != std::string::npos) return each.told;
    }
    return absl::StrCat("cannot be reached (", text, ")");
  }
  if (lower == "socket closed") return "it closed the connection";
  if (lower.find("connection timed out") != std::string::npos ||
      lower.find("keepalive watchdog timeout") != std::string::npos) {
    return "the connection is lost, it has fallen silent";
  }
  return text;
}

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
  return absl::Status(
      WithoutAnswer(code),
      absl::StrFormat("%s: %s", callee,
                      PrintableText(CauseOfFailedCall(status.error_code(), status.error_message()))));
}

}  // namespace postcopy
