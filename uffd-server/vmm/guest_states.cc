#include "vmm/guest_states.h"

#include <array>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "platform/poll_set.h"
#include "platform/unix_stream.h"
#include "vmm/json_access.h"
#include "vmm/json_stream.h"
#include "vmm/qemu_inspect.h"
#include "vmm/qmp_client.h"
#include "vmm/time_left.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kNoWaiting{0};
constexpr uint64_t kStatusId = 2;
constexpr uint64_t kMigrateId = 3;
constexpr std::string_view kQuestions =
    "{\"execute\":\"qmp_capabilities\",\"id\":1}\n"
    "{\"execute\":\"query-status\",\"id\":2}\n"
    "{\"execute\":\"query-migrate\",\"id\":3}\n";

// The conversation with one monitor. Nothing here waits.
class Conversation {
 public:
  explicit Conversation(const Monitor& monitor) { Connect(monitor); }

  bool over() const { return over_; }
  int fd() const { return socket_.get(); }
  const GuestAnswer& answer() const { return answer_; }

  // Reads what is there, a piece at most: others have their turn, too.
  void Read() {
    std::array<char, 16384> buffer;
    const StreamResult result = ReceiveBytes(socket_.get(), buffer, kNoWaiting);
    if (result.outcome == StreamOutcome::kTimedOut) return;
    if (result.outcome != StreamOutcome::kDone) return End("its monitor has closed the connection");
    received_bytes_ += result.bytes;
    const absl::Status taken =
        stream_.Feed({buffer.data(), result.bytes}, [this](std::string_view text) {
          Take(ParseJson(text));
          return absl::OkStatus();
        });
    if (over_) return;
    if (!taken.ok()) return End(absl::StrCat("its monitor: ", taken.message()));
    if (received_bytes_ > kMaxGuestAnswerBytes) {
      End(absl::StrFormat("its monitor has sent %d bytes and no answer", received_bytes_));
    }
  }

  // Without an answer so far.
  void TimeOut(milliseconds limit) {
    End(absl::StrCat("no answer from its monitor within ", DurationText(limit)));
  }

 private:
  void Connect(const Monitor& monitor) {
    if (monitor.path.empty()) return End(std::string(NoMonitor().message()));
    Result<UniqueFd> socket = ConnectUnixStream(monitor.path, kNoWaiting);
    if (!socket.ok()) return End(absl::StrCat("its monitor: ", socket.error().message));
    const Result<int> listener = PeerProcess(socket->get());
    if (!listener.ok()) return End(absl::StrCat("its monitor: ", listener.error().message));
    if (*listener != monitor.pid) {
      const absl::Status foreign = ForeignMonitor(monitor.path, *listener, monitor.pid);
      return End(std::string(foreign.message()));
    }
    socket_ = std::move(*socket);
  }

  void Take(const Json& message) {
    if (over_) return;
    if (message.contains("QMP")) {
      if (std::exchange(asked_, true)) return;
      const StreamResult sent = SendBytes(socket_.get(), kQuestions, -1, kNoWaiting);
      if (sent.outcome != StreamOutcome::kDone) End("its monitor does not read");
      return;
    }
    const uint64_t id = UnsignedAt(message, "id");
    if (id == kStatusId) status_ = MemberAt(message, "return");
    if (id != kMigrateId) return;
    answer_.state_text = StateText(status_, MemberAt(message, "return"));
    if (answer_.state_text.empty()) return End("its monitor does not tell the state of the guest");
    over_ = true;
    socket_.Reset();
  }

  void End(std::string problem) {
    answer_ = {"", std::move(problem)};
    over_ = true;
    socket_.Reset();
  }

  UniqueFd socket_;
  JsonStream stream_{kMaxGuestAnswerBytes};
  size_t received_bytes_ = 0;
  bool asked_ = false;
  bool over_ = false;
  Json status_;
  GuestAnswer answer_;
};

}  // namespace

absl::Status NoMonitor() {
  return absl::FailedPreconditionError(
      "it has told no monitor socket: start its QEMU with POSTCOPY_QMP set to the path of a QMP "
      "socket of its own");
}

std::vector<GuestAnswer> AskGuestStates(const std::vector<Monitor>& monitors, milliseconds limit) {
  const auto deadline = steady_clock::now() + limit;
  std::vector<Conversation> conversations;
  conversations.reserve(monitors.size());
  for (const Monitor& monitor : monitors) conversations.emplace_back(monitor);
  for (;;) {
    PollSet waiting;
    std::vector<Conversation*> asked;
    for (Conversation& each : conversations) {
      if (each.over()) continue;
      waiting.Add(each.fd());
      asked.push_back(&each);
    }
    const milliseconds left = TimeLeft(deadline);
    if (asked.empty() || left <= kNoWaiting) break;
    waiting.Wait(left);
    for (size_t i = 0; i < asked.size(); ++i) {
      if (waiting.readable(i)) asked[i]->Read();
    }
  }
  std::vector<GuestAnswer> answers;
  for (Conversation& each : conversations) {
    if (!each.over()) each.TimeOut(limit);
    answers.push_back(each.answer());
  }
  return answers;
}

}  // namespace postcopy
