#include "closed_loop.h"

#include <sys/epoll.h>

#include <algorithm>
#include <iostream>

#include "event_poll.h"
#include "real_clock.h"
#include "report_file.h"
#include "timing_log.h"

namespace postcopy_lab {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::duration_cast;
using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr milliseconds kReconnectDelay{100};
constexpr Clock::time_point kNever = Clock::time_point::max();

// One connection and what the loop does with it.
struct Client {
  enum class State { kIdle, kConnecting, kAsking };

  std::unique_ptr<Session> session;
  State state = State::kIdle;
  Clock::time_point next{};   // when to send or to connect; if kIdle
  Clock::time_point since{};  // of the request or of the connecting; otherwise

  bool waiting() const { return state != State::kIdle; }
};

class Loop {
 public:
  explicit Loop(const LoopOptions& options) : options_(options), log_(RealNow()) {}

  int Run(std::vector<std::unique_ptr<Session>> sessions,
          const std::function<void(nlohmann::json&)>& add);

 private:
  void Act(Client& client, Clock::time_point now);
  void OnReady(Client& client);
  void OnResponse(Client& client, bool right);
  void Lose(Client& client, const std::string& cause);
  void ExpireOld(Clock::time_point now);
  Clock::time_point NextAct(Clock::time_point now, Clock::time_point end) const;
  int Write(RealTime end, const std::function<void(nlohmann::json&)>& add);

  const LoopOptions options_;
  TimingLog log_;
  EventPoll poll_;
  bool told_start_ = false;
  std::vector<std::unique_ptr<Client>> clients_;
};

int Loop::Run(std::vector<std::unique_ptr<Session>> sessions,
              const std::function<void(nlohmann::json&)>& add) {
  if (const std::string problem = poll_.Open(); !problem.empty()) {
    std::cerr << "lab-load-client: " << problem << "\n";
    return 1;
  }
  const Clock::time_point begin = Clock::now();
  const Clock::time_point end = options_.duration.count() > 0 ? begin + options_.duration : kNever;
  for (auto& session : sessions) {
    const auto number = static_cast<int64_t>(clients_.size());
    clients_.push_back(std::make_unique<Client>());
    clients_.back()->session = std::move(session);
    clients_.back()->next = begin + options_.think * number / static_cast<int64_t>(sessions.size());
  }
  bool go_on = true;
  while (go_on) {
    const Clock::time_point now = Clock::now();
    if (now >= end) break;
    for (const auto& client : clients_) {
      if (!client->waiting() && client->next <= now) Act(*client, now);
    }
    ExpireOld(now);
    go_on = poll_.Wait(NextAct(Clock::now(), end), [this](void* tag) {
      auto* client = static_cast<Client*>(tag);
      if (client->session->descriptor() >= 0) OnReady(*client);
    });
  }
  return Write(RealNow(), add);
}

Clock::time_point Loop::NextAct(Clock::time_point now, Clock::time_point end) const {
  Clock::time_point next = std::min(end, now + std::chrono::seconds(1));
  for (const auto& client : clients_) {
    if (!client->waiting()) {
      next = std::min(next, client->next);
    } else if (options_.timeout.count() > 0) {
      next = std::min(next, client->since + options_.timeout);
    }
  }
  return next;
}

void Loop::Act(Client& client, Clock::time_point now) {
  client.since = now;
  if (client.session->connected()) {
    client.state = Client::State::kAsking;
    if (!client.session->SendNext()) Lose(client, client.session->problem());
    return;
  }
  client.state = Client::State::kConnecting;
  if (!client.session->Connect()) return Lose(client, client.session->problem());
  const std::string problem = poll_.Add(client.session->descriptor(), EPOLLOUT, &client);
  if (!problem.empty()) Lose(client, problem);
}

void Loop::OnReady(Client& client) {
  switch (client.session->OnReady()) {
    case Session::Event::kPending:
      return;
    case Session::Event::kConnected:
      client.state = Client::State::kIdle;
      client.next = Clock::now();
      if (const std::string problem = poll_.Change(client.session->descriptor(), EPOLLIN, &client);
          !problem.empty()) {
        Lose(client, problem);
      }
      return;
    case Session::Event::kFinished:
      OnResponse(client, true);
      return;
    case Session::Event::kFailed:
      OnResponse(client, false);
      return;
    case Session::Event::kLost:
      Lose(client, client.session->problem());
      return;
  }
}

void Loop::OnResponse(Client& client, bool right) {
  const Clock::time_point now = Clock::now();
  if (!client.waiting()) return Lose(client, "response that nobody asked for");
  if (right) {
    log_.Finished(RealNow(), duration_cast<microseconds>(now - client.since));
  } else {
    log_.Failed(RealNow(), client.session->request(), client.session->problem());
  }
  client.state = Client::State::kIdle;
  client.next = now + options_.think;
  if (!told_start_) std::cout << "started" << std::endl;
  told_start_ = true;
}

// The connection is gone, and with it the request on it.
void Loop::Lose(Client& client, const std::string& cause) {
  const bool asking = client.state == Client::State::kAsking;
  if (client.state != Client::State::kConnecting) log_.LostConnection();
  if (client.waiting()) log_.Failed(RealNow(), asking ? client.session->request() : "", cause);
  client.session->Close();
  client.state = Client::State::kIdle;
  client.next = Clock::now() + kReconnectDelay;
}

void Loop::ExpireOld(Clock::time_point now) {
  if (options_.timeout.count() == 0) return;
  for (const auto& client : clients_) {
    if (client->waiting() && now - client->since >= options_.timeout) Lose(*client, "time-out");
  }
}

int Loop::Write(RealTime end, const std::function<void(nlohmann::json&)>& add) {
  nlohmann::json report = log_.ToJson(end);
  const Clock::time_point now = Clock::now();
  int64_t waiting = 0;
  milliseconds oldest{0};
  for (const auto& client : clients_) {
    if (!client->waiting()) continue;
    ++waiting;
    oldest = std::max(oldest, duration_cast<milliseconds>(now - client->since));
  }
  report["unfinished_requests"] = waiting;
  report["oldest_unfinished_ms"] = oldest.count();
  report["connections"] = options_.connections;
  add(report);
  return WriteReport(report, options_.output);
}

}  // namespace

int RunClosedLoop(const LoopOptions& options, std::vector<std::unique_ptr<Session>> sessions,
                  const std::function<void(nlohmann::json&)>& add) {
  return Loop(options).Run(std::move(sessions), add);
}

}  // namespace postcopy_lab
