// A QMP server for tests: a thread at one end of a socket pair that answers as it is told.
//
// It can say things that QEMU would not: half lines, garbage, nothing at all, or hang up.
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstring>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "platform/unique_fd.h"
#include "platform/unix_stream.h"
#include "vmm/json_access.h"

namespace postcopy {

// What to do about one command: send the pieces, each by its own call, then perhaps hang up.
struct QmpAnswer {
  std::vector<std::string> pieces;
  bool hang_up = false;
};

inline std::string QmpReturn(const Json& request, const Json& value = Json::object()) {
  return Json{{"return", value}, {"id", request.at("id")}}.dump() + "\r\n";
}

inline std::string QmpRefusal(const Json& request, const std::string& text,
                              const std::string& kind = "GenericError") {
  const Json error = {{"class", kind}, {"desc", text}};
  return Json{{"error", error}, {"id", request.at("id")}}.dump() + "\r\n";
}

// Stamped second.microseconds.
inline std::string QmpEventLine(const std::string& name, const Json& data = Json::object(),
                                int64_t seconds = 1, int64_t microseconds = 0) {
  const Json stamp = {{"seconds", seconds}, {"microseconds", microseconds}};
  return Json{{"event", name}, {"data", data}, {"timestamp", stamp}}.dump() + "\r\n";
}

inline std::string MigrationEventLine(const std::string& status) {
  return QmpEventLine("MIGRATION", {{"status", status}});
}

class ScriptedQmp {
 public:
  // Runs on the server's thread, one command at a time; never for qmp_capabilities.
  using Handler = std::function<QmpAnswer(const Json& request)>;
  static constexpr std::string_view kGreeting =
      "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 2, \"major\": 7}}, "
      "\"capabilities\": [\"oob\"]}}\r\n";

  explicit ScriptedQmp(Handler handler, std::string_view greeting = kGreeting)
      : handler_(std::move(handler)) {
    auto ends = MakeStreamPair();
    client_ = std::move(ends->first);
    server_ = std::move(ends->second);
    Say(std::string(greeting));
    thread_ = std::jthread([this] { Serve(); });
  }
  ~ScriptedQmp() { HangUp(); }

  // The other end, once.
  UniqueFd TakeClientEnd() { return std::move(client_); }
  // Sends `text` as it is, from any thread.
  void Say(const std::string& text) {
    SendBytes(server_.get(), text, -1, std::chrono::seconds(5));
  }
  void HangUp() { ShutDown(server_.get(), StreamDirection::kBoth); }

  // The names of the commands so far, qmp_capabilities left out.
  std::vector<std::string> commands() const {
    std::lock_guard lock(mutex_);
    return commands_;
  }
  // The last descriptor that came along with a command; not valid if none did.
  UniqueFd TakePassedFd() {
    std::lock_guard lock(mutex_);
    return std::move(passed_fd_);
  }

 private:
  void Serve() {
    std::string text;
    std::array<char, 4096> buffer;
    for (ssize_t count; (count = Receive(buffer)) > 0;) {
      text.append(buffer.data(), static_cast<size_t>(count));
      for (size_t end; (end = text.find('\n')) != std::string::npos; text.erase(0, end + 1)) {
        if (!Answer(Json::parse(text.substr(0, end)))) return;
      }
    }
  }

  ssize_t Receive(std::array<char, 4096>& buffer) {
    iovec part = {buffer.data(), buffer.size()};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    msghdr message = {};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    const ssize_t count = ::recvmsg(server_.get(), &message, MSG_CMSG_CLOEXEC);
    const cmsghdr* header = count > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
    if (header != nullptr && header->cmsg_type == SCM_RIGHTS) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(header), sizeof(fd));
      std::lock_guard lock(mutex_);
      passed_fd_ = UniqueFd(fd);
    }
    return count;
  }

  bool Answer(const Json& request) {
    const std::string command = StringAt(request, "execute");
    if (command == "qmp_capabilities") {
      Say(QmpReturn(request));
      return true;
    }
    {
      std::lock_guard lock(mutex_);
      commands_.push_back(command);
    }
    const QmpAnswer answer = handler_(request);
    for (const std::string& piece : answer.pieces) Say(piece);
    if (answer.hang_up) HangUp();
    return !answer.hang_up;
  }

  const Handler handler_;
  UniqueFd client_;
  UniqueFd server_;
  mutable std::mutex mutex_;
  std::vector<std::string> commands_;
  UniqueFd passed_fd_;
  std::jthread thread_;
};

}  // namespace postcopy
