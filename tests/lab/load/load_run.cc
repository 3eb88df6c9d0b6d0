#include "load_run.h"

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
#include <memory>
#include <vector>

#include "content.h"
#include "timing_log.h"

namespace postcopy_lab {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::duration_cast;
using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr milliseconds kReconnectDelay{100};
constexpr Clock::time_point kNever = Clock::time_point::max();

// One connection and the request on it.
struct Client {
  HttpConnection connection;
  bool waiting = false;      // for a response or for the connection
  Clock::time_point next{};  // when to send or to connect; if !waiting
  Clock::time_point sent{};  // if waiting
  std::string path;          // asked for; empty while connecting
};

class LoadLoop {
 public:
  explicit LoadLoop(const LoadOptions& options)
      : options_(options), random_(lab_mix64(options.seed)), log_(Now()) {}

  int Run();

 private:
  static RealTime Now() {
    return std::chrono::time_point_cast<microseconds>(std::chrono::system_clock::now());
  }
  bool Prepare();
  void Act(Client& client, Clock::time_point now);
  void OnReady(Client& client);
  void OnResponse(Client& client);
  void Lose(Client& client, const std::string& cause);
  void Watch(Client& client, uint32_t events, int operation);
  void ExpireOld(Clock::time_point now);
  timespec UntilNext(Clock::time_point now, Clock::time_point end) const;
  std::string NextPath();
  int Write(RealTime end);

  const LoadOptions options_;
  uint64_t random_;
  TimingLog log_;
  int epoll_ = -1;
  int signals_ = -1;
  bool told_start_ = false;
  std::vector<std::unique_ptr<Client>> clients_;
};

bool LoadLoop::Prepare() {
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

int LoadLoop::Run() {
  if (!Prepare()) return 1;
  const Clock::time_point begin = Clock::now();
  const Clock::time_point end = options_.duration.count() > 0 ? begin + options_.duration : kNever;
  for (int i = 0; i < options_.connections; ++i) {
    clients_.push_back(std::make_unique<Client>());
    clients_.back()->next = begin + options_.think * i / options_.connections;
  }
  bool stop = false;
  while (!stop) {
    const Clock::time_point now = Clock::now();
    if (now >= end) break;
    for (const auto& client : clients_) {
      if (!client->waiting && client->next <= now) Act(*client, now);
    }
    ExpireOld(now);
    std::array<epoll_event, 64> events;
    const timespec wait = UntilNext(Clock::now(), end);
    const int count = epoll_pwait2(epoll_, events.data(), events.size(), &wait, nullptr);
    for (int i = 0; i < count; ++i) {
      auto* client = static_cast<Client*>(events[static_cast<size_t>(i)].data.ptr);
      if (client == nullptr) {
        stop = true;
      } else if (client->connection.descriptor() >= 0) {
        OnReady(*client);
      }
    }
  }
  return Write(Now());
}

timespec LoadLoop::UntilNext(Clock::time_point now, Clock::time_point end) const {
  Clock::time_point next = std::min(end, now + std::chrono::seconds(1));
  for (const auto& client : clients_) {
    if (!client->waiting) {
      next = std::min(next, client->next);
    } else if (options_.timeout.count() > 0) {
      next = std::min(next, client->sent + options_.timeout);
    }
  }
  const auto ns = std::max<int64_t>(0, std::chrono::nanoseconds(next - now).count());
  return {.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000};
}

std::string LoadLoop::NextPath() {
  random_ += kLabGolden;
  return "/f/" + std::to_string(lab_mix64(random_) % options_.files);
}

void LoadLoop::Watch(Client& client, uint32_t events, int operation) {
  epoll_event event{.events = events, .data = {.ptr = &client}};
  if (epoll_ctl(epoll_, operation, client.connection.descriptor(), &event) != 0) {
    Lose(client, std::string("epoll: ") + strerror(errno));
  }
}

void LoadLoop::Act(Client& client, Clock::time_point now) {
  client.waiting = true;
  client.sent = now;
  HttpConnection::Outcome outcome;
  if (client.connection.connected()) {
    client.path = NextPath();
    outcome = client.connection.Send(client.path);
  } else {
    client.path.clear();
    outcome = client.connection.Connect(options_.server);
    if (outcome != HttpConnection::Outcome::kLost) Watch(client, EPOLLOUT, EPOLL_CTL_ADD);
  }
  if (outcome == HttpConnection::Outcome::kLost) Lose(client, client.connection.problem());
}

void LoadLoop::OnReady(Client& client) {
  switch (client.connection.OnReady([](std::span<const char>) {})) {
    case HttpConnection::Outcome::kPending:
      return;
    case HttpConnection::Outcome::kConnected:
      client.waiting = false;
      client.next = Clock::now();
      Watch(client, EPOLLIN, EPOLL_CTL_MOD);
      return;
    case HttpConnection::Outcome::kResponse:
      OnResponse(client);
      return;
    case HttpConnection::Outcome::kLost:
      Lose(client, client.connection.problem());
      return;
  }
}

void LoadLoop::OnResponse(Client& client) {
  const Clock::time_point now = Clock::now();
  const HttpResponse& response = client.connection.response();
  if (!client.waiting) return Lose(client, "response that nobody asked for");
  if (response.status() != 200) {
    log_.Failed(Now(), client.path, "status " + std::to_string(response.status()));
  } else if (response.length_bytes() != LAB_FILE_BYTES) {
    log_.Failed(Now(), client.path, "length " + std::to_string(response.length_bytes()));
  } else {
    log_.Finished(Now(), duration_cast<microseconds>(now - client.sent));
  }
  client.waiting = false;
  client.next = now + options_.think;
  if (!told_start_) std::cout << "started" << std::endl;
  told_start_ = true;
}

// The connection is gone, and with it the request on it.
void LoadLoop::Lose(Client& client, const std::string& cause) {
  if (!client.path.empty() || !client.waiting) log_.LostConnection();
  if (client.waiting) log_.Failed(Now(), client.path, cause);
  client.connection.Close();
  client.path.clear();
  client.waiting = false;
  client.next = Clock::now() + kReconnectDelay;
}

void LoadLoop::ExpireOld(Clock::time_point now) {
  if (options_.timeout.count() == 0) return;
  for (const auto& client : clients_) {
    if (client->waiting && now - client->sent >= options_.timeout) Lose(*client, "time-out");
  }
}

int LoadLoop::Write(RealTime end) {
  nlohmann::json report = log_.ToJson(end);
  const Clock::time_point now = Clock::now();
  int64_t waiting = 0;
  milliseconds oldest{0};
  for (const auto& client : clients_) {
    if (!client->waiting) continue;
    ++waiting;
    oldest = std::max(oldest, duration_cast<milliseconds>(now - client->sent));
  }
  report["unfinished_requests"] = waiting;
  report["oldest_unfinished_ms"] = oldest.count();
  report["connections"] = options_.connections;
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

int RunLoad(const LoadOptions& options) { return LoadLoop(options).Run(); }

}  // namespace postcopy_lab
