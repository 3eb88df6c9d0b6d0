#include "vmm/qmp_client.h"

#include <array>
#include <exception>
#include <utility>

#include "absl/strings/str_format.h"
#include "platform/unix_stream.h"
#include "vmm/json_stream.h"
#include "vmm/time_left.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

absl::Status StatusOf(const Error& error) {
  switch (error.code) {
    case ErrorCode::kInvalidArgument: return absl::InvalidArgumentError(error.message);
    case ErrorCode::kNotFound: return absl::NotFoundError(error.message);
    case ErrorCode::kUnavailable: return absl::UnavailableError(error.message);
    case ErrorCode::kTimeout: return absl::DeadlineExceededError(error.message);
    case ErrorCode::kPermission: return absl::PermissionDeniedError(error.message);
    case ErrorCode::kMismatch: return absl::FailedPreconditionError(error.message);
    case ErrorCode::kUnsupported: return absl::UnimplementedError(error.message);
    case ErrorCode::kProtocol:
    case ErrorCode::kIo: return absl::InternalError(error.message);
  }
  return absl::InternalError(error.message);
}

// The status of an answer's "error" member.
absl::Status QmpError(const Json& error) {
  const std::string kind = StringAt(error, "class");
  std::string text = StringAt(error, "desc");
  if (text.empty()) text = "refused without a reason";
  if (kind == "CommandNotFound") return absl::UnimplementedError(text);
  if (kind == "DeviceNotFound") return absl::NotFoundError(text);
  return absl::FailedPreconditionError(text);
}

EventTime TimeOf(const Json& event) {
  const Json& stamp = MemberAt(event, "timestamp");
  const uint64_t seconds = UnsignedAt(stamp, "seconds");
  return {static_cast<int64_t>(seconds * 1'000'000 + UnsignedAt(stamp, "microseconds"))};
}

}  // namespace

std::string DurationText(milliseconds duration) {
  const int64_t count = duration.count();
  return count % 1000 == 0 ? absl::StrFormat("%d s", count / 1000)
                           : absl::StrFormat("%d ms", count);
}

absl::Status ForeignMonitor(const std::string& path, int listener_pid, int vmm_pid) {
  return absl::FailedPreconditionError(absl::StrFormat(
      "connect %s: its monitor socket belongs to process %d, but the hook has registered process %d: "
      "that QEMU runs without libpostcopy-preload.so",
      path, listener_pid, vmm_pid));
}

absl::StatusOr<std::unique_ptr<QmpClient>> QmpClient::Connect(const std::string& path, int pid,
                                                              milliseconds timeout) {
  Result<UniqueFd> socket = ConnectUnixStream(path, timeout);
  if (!socket.ok()) return StatusOf(socket.error());
  const Result<int> listener = PeerProcess(socket->get());
  if (!listener.ok()) return StatusOf(listener.error());
  if (*listener != pid) return ForeignMonitor(path, *listener, pid);
  return Open(std::move(*socket), path, timeout);
}

absl::StatusOr<std::unique_ptr<QmpClient>> QmpClient::Open(UniqueFd socket, std::string name,
                                                           milliseconds timeout) {
  std::unique_ptr<QmpClient> client(new QmpClient(std::move(socket), std::move(name)));
  if (absl::Status reading = client->StartReading(); !reading.ok()) return reading;
  absl::Status greeted = client->WaitForGreeting(timeout);
  if (!greeted.ok()) return greeted;
  absl::StatusOr<Json> ready = client->Command("qmp_capabilities", Json::object(), timeout);
  if (!ready.ok()) return ready.status();
  return client;
}

QmpClient::QmpClient(UniqueFd socket, std::string name)
    : socket_(std::move(socket)), name_(std::move(name)) {
  const Result<int> pid = PeerProcess(socket_.get());
  if (pid.ok()) peer_pid_ = *pid;
}

absl::Status QmpClient::StartReading() {
  Result<QuietThread> reader = QuietThread::Start("pc-monitor", [this] {
    try {
      ReadMessages();
    } catch (const std::exception& error) {
      EndConnection(absl::ResourceExhaustedError(error.what()));
    }
  });
  if (!reader.ok()) {
    return Failure("connect", absl::ResourceExhaustedError(reader.error().message));
  }
  reader_.emplace(std::move(*reader));
  return absl::OkStatus();
}

QmpClient::~QmpClient() {
  ShutDown(socket_.get(), StreamDirection::kBoth);
  if (reader_.has_value()) reader_->Join();
}

absl::Status QmpClient::Failure(std::string_view operation, const absl::Status& cause) const {
  return absl::Status(cause.code(), absl::StrFormat("qmp %s at %s: %s", operation, name_,
                                                    std::string(cause.message())));
}

bool QmpClient::WaitUntil(TimePoint deadline) {
  if (steady_clock::now() >= deadline) return false;
  changed_.WaitFor(mutex_, deadline - steady_clock::now());
  return true;
}

absl::Status QmpClient::WaitForGreeting(milliseconds timeout) {
  const TimePoint deadline = steady_clock::now() + timeout;
  MutexLock lock(mutex_);
  while (!greeted_ && ended_.ok()) {
    if (WaitUntil(deadline)) continue;
    return Failure("greeting", absl::DeadlineExceededError(absl::StrFormat(
        "none within %s; another client may hold this monitor", DurationText(timeout))));
  }
  return greeted_ ? absl::OkStatus() : Failure("greeting", ended_);
}

absl::StatusOr<Json> QmpClient::Command(std::string_view command, Json arguments,
                                        milliseconds timeout) {
  return Exchange(command, std::move(arguments), -1, timeout);
}

bool QmpClient::OwesAnAnswer() const {
  MutexLock lock(mutex_);
  return !unanswered_.empty();
}

absl::Status QmpClient::PassDescriptor(const std::string& fd_name, int fd, milliseconds timeout) {
  return Exchange("getfd", Json{{"fdname", fd_name}}, fd, timeout).status();
}

absl::StatusOr<Json> QmpClient::Exchange(std::string_view command, Json arguments, int passed_fd,
                                         milliseconds timeout) {
  const TimePoint deadline = steady_clock::now() + timeout;
  uint64_t id;
  {
    MutexLock lock(mutex_);
    id = ++last_id_;
    waiting_.emplace(id, std::nullopt);
  }
  const Json request = {{"execute", command}, {"arguments", std::move(arguments)}, {"id", id}};
  const std::string line = request.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  const absl::Status sent = Send(line, passed_fd, deadline);

  MutexLock lock(mutex_);
  auto slot = waiting_.find(id);
  bool in_time = sent.ok();
  while (in_time && !slot->second.has_value() && ended_.ok()) in_time = WaitUntil(deadline);
  const std::optional<Json> answer = std::move(slot->second);
  waiting_.erase(slot);
  if (sent.ok() && !answer.has_value()) unanswered_.insert(id);
  if (answer.has_value()) {
    if (answer->contains("return")) return MemberAt(*answer, "return");
    return Failure(command, QmpError(MemberAt(*answer, "error")));
  }
  if (!ended_.ok()) return Failure(command, ended_);
  return Failure(command, absl::DeadlineExceededError(
                              absl::StrFormat("no answer within %s", DurationText(timeout))));
}

// Not ok: the deadline has passed, or the connection has ended.
absl::Status QmpClient::Send(const std::string& line, int passed_fd, TimePoint deadline) {
  {
    MutexLock lock(mutex_);
    while (sending_ && ended_.ok()) {
      if (!WaitUntil(deadline)) return absl::DeadlineExceededError("another command is being sent");
    }
    if (!ended_.ok()) return ended_;
    sending_ = true;
  }
  const StreamResult result = SendBytes(socket_.get(), line, passed_fd, TimeLeft(deadline));
  if (result.outcome == StreamOutcome::kClosed || result.outcome == StreamOutcome::kFailed) {
    EndConnection(absl::UnavailableError("the VMM has closed the connection"));
  } else if (result.outcome == StreamOutcome::kTimedOut && result.bytes > 0) {
    // Half a line has gone: whatever followed would be taken for its rest.
    EndConnection(absl::UnavailableError("the VMM stopped reading within a command"));
  }
  MutexLock lock(mutex_);
  sending_ = false;
  changed_.NotifyAll();
  if (result.outcome == StreamOutcome::kTimedOut) return absl::DeadlineExceededError("not sent");
  return ended_;
}

uint64_t QmpClient::EventCursor() const {
  MutexLock lock(mutex_);
  return first_event_ + events_.size();
}

absl::StatusOr<QmpEvent> QmpClient::NextEvent(uint64_t& cursor, milliseconds timeout) {
  const TimePoint deadline = steady_clock::now() + timeout;
  MutexLock lock(mutex_);
  while (cursor >= first_event_ + events_.size()) {
    if (!ended_.ok()) return Failure("event", ended_);
    if (WaitUntil(deadline)) continue;
    return Failure("event", absl::DeadlineExceededError(
                                absl::StrFormat("none within %s", DurationText(timeout))));
  }
  if (cursor < first_event_) cursor = first_event_;
  return events_[cursor++ - first_event_].event;
}

void QmpClient::ReadMessages() {
  std::array<char, 16384> buffer;
  JsonStream stream(kMaxMessageBytes);
  for (;;) {
    const StreamResult result = ReceiveBytes(socket_.get(), buffer, milliseconds(-1));
    if (result.outcome != StreamOutcome::kDone) {
      return EndConnection(absl::UnavailableError("the VMM has closed the connection"));
    }
    const absl::Status taken =
        stream.Feed({buffer.data(), result.bytes}, [this](std::string_view text) {
          absl::Status few = CountMessage(text.size());
          return few.ok() ? Take(text) : few;
        });
    if (!taken.ok()) return EndConnection(absl::UnavailableError(taken.message()));
  }
}

absl::Status QmpClient::CountMessage(size_t bytes) {
  const TimePoint now = steady_clock::now();
  if (now - second_began_ >= std::chrono::seconds(1)) {
    second_began_ = now;
    second_messages_ = 0;
    second_bytes_ = 0;
  }
  second_bytes_ += bytes;
  if (++second_messages_ <= kMaxMessagesPerSecond && second_bytes_ <= kMaxBytesPerSecond) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(
      absl::StrFormat("the VMM sends more than %d messages or %d bytes a second",
                      kMaxMessagesPerSecond, kMaxBytesPerSecond));
}

absl::Status QmpClient::Take(std::string_view text) {
  Json message = ParseJson(text);
  if (!message.is_object()) {
    return absl::InvalidArgumentError("something was sent that looks like a JSON object and is none");
  }
  MutexLock lock(mutex_);
  if (message.contains("QMP")) {
    greeted_ = true;
  } else if (message.contains("event")) {
    Queue({StringAt(message, "event"), MemberAt(message, "data"), TimeOf(message)}, text.size());
  } else {
    const uint64_t id = UnsignedAt(message, "id");
    unanswered_.erase(id);
    const auto slot = waiting_.find(id);
    if (slot != waiting_.end()) slot->second = std::move(message);
  }
  changed_.NotifyAll();
  return absl::OkStatus();
}

void QmpClient::Queue(QmpEvent event, size_t message_bytes) {
  events_.push_back({std::move(event), message_bytes});
  event_bytes_ += message_bytes;
  while (events_.size() > kMaxQueuedEvents || event_bytes_ > kMaxQueuedEventBytes) {
    event_bytes_ -= events_.front().message_bytes;
    events_.pop_front();
    ++first_event_;
  }
}

void QmpClient::EndConnection(absl::Status cause) {
  ShutDown(socket_.get(), StreamDirection::kBoth);
  MutexLock lock(mutex_);
  if (ended_.ok()) ended_ = std::move(cause);
  changed_.NotifyAll();
}

}  // namespace postcopy
