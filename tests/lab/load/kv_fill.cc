#include "kv_fill.h"

#include <poll.h>

#include "kv_request.h"
#include "kv_response.h"

namespace postcopy_lab {
namespace {

constexpr uint32_t kMaxOnTheWay = 256;

class Fill {
 public:
  explicit Fill(const KvModel& model) : model_(model) {}

  std::string Run(const Server& server, std::chrono::milliseconds timeout);

 private:
  bool Step(short events);
  bool Send();
  bool Receive();

  const KvModel& model_;
  TcpConnection connection_;
  KvResponse response_;
  uint32_t sent_ = 0;    // keys below have been asked for, or are in to_send_
  uint32_t stored_ = 0;  // keys below are in the server
  std::string to_send_;
};

std::string Fill::Run(const Server& server, std::chrono::milliseconds timeout) {
  bool stands = connection_.Connect(server);
  while (stands && stored_ < model_.keys()) {
    const bool to_send =
        !to_send_.empty() || (sent_ < model_.keys() && sent_ - stored_ < kMaxOnTheWay);
    pollfd watched{connection_.descriptor(),
                   static_cast<short>(to_send ? POLLIN | POLLOUT : POLLIN), 0};
    const int ready = poll(&watched, 1, static_cast<int>(timeout.count()));
    if (ready == 0) return "nothing happens within the time-out";
    if (ready > 0) stands = Step(watched.revents);
  }
  return stands ? std::string() : connection_.problem();
}

bool Fill::Step(short events) {
  if (!connection_.connected()) return connection_.FinishConnecting();
  if ((events & POLLOUT) != 0 && !Send()) return false;
  return (events & ~POLLOUT) == 0 || Receive();
}

bool Fill::Send() {
  while (sent_ < model_.keys() && sent_ - stored_ < kMaxOnTheWay && to_send_.size() < 65536) {
    to_send_ += SetRequest(KvModel::Name(sent_), model_.Value(sent_, 0));
    ++sent_;
  }
  size_t sent_bytes;
  if (!connection_.SendSome(to_send_, &sent_bytes)) return false;
  to_send_.erase(0, sent_bytes);
  return true;
}

bool Fill::Receive() {
  std::string problem;
  const bool stands = connection_.Receive([&](std::span<const char> bytes) {
    while (!bytes.empty() && problem.empty()) {
      bytes = bytes.subspan(response_.Feed(bytes));
      if (response_.state() == KvResponse::State::kDone &&
          response_.kind() == KvResponse::Kind::kStored && stored_ < sent_) {
        ++stored_;
        response_.Reset();
      } else if (response_.state() == KvResponse::State::kDone ||
                 response_.state() == KvResponse::State::kMalformed) {
        problem = "set " + KvModel::Name(stored_) + ": " +
                  (response_.problem().empty() ? "not stored" : response_.problem());
      }
    }
    return problem.empty();
  });
  if (!problem.empty()) connection_.Lose(problem);
  return stands && problem.empty();
}

}  // namespace

std::string FillServer(const Server& server, const KvModel& model,
                       std::chrono::milliseconds timeout) {
  return Fill(model).Run(server, timeout);
}

}  // namespace postcopy_lab
