#include "closed_loop.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>

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
  explicit Loop(const LoopOptions& options) : options_(options), log_(Now()) {}

  int Run(std::vector<std::unique_ptr<Session>> sessions,
          const std::function<void(nlohmann::json&)>& add);

 private:
  static RealTime Now() {
    return std::chrono::time_point_cast<microseconds>(std::chrono::system_clock::now());
  }
  bool Prepare();
  void Act(Client& client, Clock::time_point now);
  void OnReady(Client& client);
  void OnResponse(Client& client, bool right);
  void Lose(Client& client, const std::string& cause);
  void Watch(Client& client, uint32_t events, int operation);
  void ExpireOld(Clock::time_point now);
  timespec UntilNext(Clock::time_point now, Clock::time_point end) const;
  int Write(RealTime end, const std::function<void(nlohmann::json&)>& add);

  const LoopOptions options_;
  TimingLog log_;
  int epoll_ = -1;
  int signals_ = -1;
  bool told_start_ = false;
  std::vector<std::unique_ptr<Client>> clients_;
};

bool Loop::Prepare() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  signals_ = signalfd(-1, &set, SFD_CLOEXEC);
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{.events = EPOLLIN, .data = {.ptr = nullptr}};
  if (signals_ < 0 || epoll_ < 0 || epoll_ctl(epoll_, EPOLL_CTL_ADD, signals_, &event) != 0) {
    std::cerr << "lab-load-client: wait for signals: " << strerror(errno) << "\n";
    return false;
  }
  return true;
}

int Loop::Run(std::vector<std::unique_ptr<Session>> sessions,
              const std::function<void(nlohmann::json&)>& add) {
  if (!Prepare()) return 1;
  const Clock::time_point begin = Clock::now();
  const Clock::time_point end = options_.duration.count() > 0 ? begin + options_.duration : kNever;
  for (auto& session : sessions) {
    const auto number = static_cast<int64_t>(clients_.size());
    clients_.push_back(std::make_unique<Client>());
    clients_.back()->session = std::move(session);
    clients_.back()->next = begin + options_.think * number / static_cast<int64_t>(sessions.size());
  }
  bool stop = false;
  while (!stop) {
    const Clock::time_point now = Clock::now();
    if (now >= end) break;
    for (const auto& client : clients_) {
      if (!client->waiting() && client->next <= now) Act(*client, now);
    }
    ExpireOld(now);
    std::array<epoll_event, 64> events;
    const timespec wait = UntilNext(Clock::now(), end);
    const int count = epoll_pwait2(epoll_, events.data(), events.size(), &wait, nullptr);
    for (int i = 0; i < count; ++i) {
      auto* client = static_cast<Client*>(events[static_cast<size_t>(i)].data.ptr);
      if (client == nullptr) {
        stop = true;
      } else if (client->session->descriptor() >= 0) {
        OnReady(*client);
      }
    }
  }
  return Write(Now(), add);
}

timespec Loop::UntilNext(Clock::time_point now, Clock::time_point end) const {
  Clock::time_point next = std::min(end, now + std::chrono::seconds(1));
  for (const auto& client : clients_) {
    if (!client->waiting()) {
      next = std::min(next, client->next);
    } else if (options_.timeout.count() > 0) {
      next = std::min(next, client->since + options_.timeout);
    }
  }
  const auto ns = std::max<int64_t>(0, std::chrono::nanoseconds(next - now).count());
  return {.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000};
}

void Loop::Watch(Client& client, uint32_t events, int operation) {
  epoll_event event{.events = events, .data = {.ptr = &client}};
  if (epoll_ctl(epoll_, operation, client.session->descriptor(), &event) != 0) {
    Lose(client, std::string("epoll: ") + strerror(errno));
  }
}

void Loop::Act(Client& client, Clock::time_point now) {
  client.since = now;
  bool stands;
  if (client.session->connected()) {
    client.state = Client::State::kAsking;
    stands = client.session->SendNext();
  } else {
    client.state = Client::State::kConnecting;
    stands = client.session->Connect();
    if (stands) Watch(client, EPOLLOUT, EPOLL_CTL_ADD);
  }
  if (!stands) Lose(client, client.session->problem());
}

void Loop::OnReady(Client& client) {
  switch (client.session->OnReady()) {
    case Session::Event::kPending:
      return;
    case Session::Event::kConnected:
      client.state = Client::State::kIdle;
      client.next = Clock::now();
      Watch(client, EPOLLIN, EPOLL_CTL_MOD);
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
    log_.Finished(Now(), duration_cast<microseconds>(now - client.since));
  } else {
    log_.Failed(Now(), client.session->request(), client.session->problem());
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
  if (client.waiting()) log_.Failed(Now(), asking ? client.session->request() : "", cause);
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
  if (options_.output.empty()) {
    std::cout << report.dump() << std::endl;
    return std::cout ? 0 : 1;
  }
  std::ofstream file(options_.output);
  file << report.dump() << std::endl;
  if (!file) {
    std::cerr << "lab-load-client: write " << options_.output << ": " << strerror(errno) << "\n";
    return 1;
  }
  return 0;
}

}  // namespace

int RunClosedLoop(const LoopOptions& options, std::vector<std::unique_ptr<Session>> sessions,
                  const std::function<void(nlohmann::json&)>& add) {
  return Loop(options).Run(std::move(sessions), add);
}

}  // namespace postcopy_lab
