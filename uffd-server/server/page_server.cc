#include "server/page_server.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "core/address.h"
#include "platform/tcp_socket.h"
#include "server/page_lane.h"
#include "server/status_of.h"

namespace postcopy {
namespace {

constexpr AddressForm kForm{.default_port = std::nullopt, .may_be_unix = false, .may_listen = true};
// A peer that connects all the time must not fill the log.
constexpr std::chrono::seconds kLogRefusalsEvery{10};

}  // namespace

absl::StatusOr<std::unique_ptr<PageServer>> PageServer::Listen(
    const std::vector<std::string>& addresses) {
  std::unique_ptr<PageServer> server(new PageServer);
  for (const std::string& address : addresses) {
    auto listener = ListenTcp(address);
    if (!listener.ok()) return StatusOf(listener.error());
    const auto port = LocalPort(listener->get());
    if (!port.ok()) return StatusOf(port.error());
    server->addresses_.push_back(Address::Parse(address, kForm)->WithPort(*port).ToString());
    server->listeners_.push_back(std::move(*listener));
  }
  for (const UniqueFd& listener : server->listeners_) {
    auto acceptor = QuietThread::Start(
        "ps-accept", [raw = server.get(), fd = listener.get()] { raw->AcceptLoop(fd); });
    if (!acceptor.ok()) return StatusOf(acceptor.error());
    server->acceptors_.push_back(std::move(*acceptor));
  }
  return server;
}

PageServer::~PageServer() {
  for (const UniqueFd& listener : listeners_) Shutdown(listener.get());
  for (QuietThread& acceptor : acceptors_) acceptor.Join();
  {
    absl::MutexLock lock(&mutex_);
    sessions_.clear();
    for (LaneThread& lane : lanes_) {
      if (!lane.ended) Shutdown(lane.socket.get());
    }
  }
  // No acceptor is left, so the list no longer changes.
  for (LaneThread& lane : lanes_) lane.thread->Join();
}

void PageServer::Add(const SessionId& id, std::shared_ptr<PageSource> source) {
  auto session = std::make_shared<ServedSession>();
  session->name = id.ToString();
  session->source = std::move(source);
  absl::MutexLock lock(&mutex_);
  sessions_[id] = std::move(session);
}

bool PageServer::Serves(const SessionId& id) {
  absl::MutexLock lock(&mutex_);
  return sessions_.contains(id);
}

void PageServer::Freeze(const SessionId& id) {
  std::shared_ptr<ServedSession> session;
  {
    absl::MutexLock lock(&mutex_);
    const auto found = sessions_.find(id);
    if (found == sessions_.end() || found->second->frozen.load(std::memory_order_relaxed)) return;
    session = found->second;
  }
  session->source->Freeze();
  session->frozen.store(true, std::memory_order_release);
}

bool PageServer::HasLanes(const SessionId& id) {
  absl::MutexLock lock(&mutex_);
  const auto found = sessions_.find(id);
  return found != sessions_.end() &&
         std::any_of(lanes_.begin(), lanes_.end(), [&](const LaneThread& lane) {
           return lane.session == found->second && !lane.closing && !lane.ended;
         });
}

void PageServer::Remove(const SessionId& id) { End(id, std::nullopt); }

void PageServer::Withdraw(const SessionId& id, std::string cause) { End(id, std::move(cause)); }

void PageServer::End(const SessionId& id, std::optional<std::string> cause) {
  std::shared_ptr<ServedSession> session;  // ends when the lock is free: that may wait
  absl::MutexLock lock(&mutex_);
  withdrawn_.erase(id);
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  if (cause.has_value()) withdrawn_.emplace(id, *std::move(cause));
  session = found->second;
  sessions_.erase(found);
  for (LaneThread& lane : lanes_) {
    if (lane.served == session.get()) Shutdown(lane.socket.get());
  }
  const auto none_left = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (const LaneThread& lane : lanes_) {
      if (lane.served == session.get() && !lane.ended) return false;
    }
    return true;
  };
  mutex_.Await(absl::Condition(&none_left));
}

void PageServer::ReapEnded() {
  std::list<LaneThread> ended;
  {
    absl::MutexLock lock(&mutex_);
    for (auto at = lanes_.begin(); at != lanes_.end();) {
      const auto next = std::next(at);
      if (at->ended) ended.splice(ended.end(), lanes_, at);
      at = next;
    }
  }
  for (LaneThread& lane : ended) lane.thread->Join();
}

bool PageServer::MakeRoom() {
  const auto not_ended = std::count_if(lanes_.begin(), lanes_.end(),
                                       [](const LaneThread& lane) { return !lane.ended; });
  if (static_cast<size_t>(not_ended) >= 2 * kMaxLanes) return false;  // those that are ending are stuck
  const auto open = std::count_if(lanes_.begin(), lanes_.end(), [](const LaneThread& lane) {
    return !lane.closing && !lane.ended;
  });
  if (static_cast<size_t>(open) < kMaxLanes) return true;
  const auto silent = std::find_if(lanes_.begin(), lanes_.end(), [](const LaneThread& lane) {
    return !lane.closing && !lane.ended && lane.session == nullptr;
  });
  if (silent == lanes_.end()) return false;
  spdlog::info("page server: lane closed, peer {}, cause it has not greeted and others want its place",
               silent->peer);
  silent->closing = true;
  Shutdown(silent->socket.get());
  return true;
}

void PageServer::AcceptLoop(int listener) {
  for (;;) {
    std::string peer;
    auto socket = AcceptTcp(listener, peer);
    if (!socket.ok()) {
      if (socket.error().code == ErrorCode::kUnavailable) return;  // shut down
      spdlog::warn("page server: {}", socket.error().message);
      std::this_thread::sleep_for(std::chrono::milliseconds(100));  // out of descriptors, say
      continue;
    }
    ReapEnded();
    StartLane(std::move(*socket), std::move(peer));
  }
}

void PageServer::StartLane(UniqueFd socket, std::string peer) {
  std::string refusal;
  {
    absl::MutexLock lock(&mutex_);
    if (MakeRoom()) {
      LaneThread& lane = lanes_.emplace_back();
      lane.socket = std::move(socket);
      lane.peer = peer;
      auto thread = QuietThread::Start("ps-lane", [this, &lane] { RunLane(lane); });
      if (thread.ok()) {
        lane.thread.emplace(std::move(*thread));
        return;
      }
      refusal = thread.error().message;
      lanes_.pop_back();
    } else {
      refusal = absl::StrCat(kMaxLanes, " lanes are open");
    }
    const auto now = std::chrono::steady_clock::now();
    ++refused_;
    if (refused_ > 1 && now - refusal_logged_ < kLogRefusalsEvery) return;
    refusal_logged_ = now;
  }
  spdlog::warn("page server: lane refused, peer {}, cause {}", peer, refusal);
}

absl::StatusOr<std::shared_ptr<ServedSession>> PageServer::Join(LaneThread& lane,
                                                                const wire::Hello& hello) {
  absl::MutexLock lock(&mutex_);
  const auto found = sessions_.find(hello.session);
  if (const auto withdrawn = withdrawn_.find(hello.session); withdrawn != withdrawn_.end()) {
    return absl::DataLossError(withdrawn->second);
  }
  // Of a source that stood still a destination has tried several connections, and given all but one up.
  if (found == sessions_.end() || lane.closing || HasEnded(lane.socket.get())) {
    return absl::NotFoundError("no such session");
  }
  if (hello.lane == wire::Lane::kUrgent) {
    // The destination makes all lanes anew when one breaks, the urgent one first: what it had before is
    // of no use to anybody, and may not have noticed yet.
    for (LaneThread& other : lanes_) {
      if (&other == &lane) break;  // those behind it came later, and are the better ones
      if (other.session != found->second || other.closing) continue;
      other.closing = true;
      Shutdown(other.socket.get());
    }
  }
  lane.session = found->second;
  lane.served = lane.session.get();
  return lane.session;
}

void PageServer::RunLane(LaneThread& lane) {
  const std::string reason = ServeLane(
      lane.socket.get(), [&](const wire::Hello& hello) { return Join(lane, hello); });
  if (!reason.empty()) spdlog::info("page server: lane closed, peer {}, cause {}", lane.peer, reason);
  std::shared_ptr<ServedSession> session;
  {
    absl::MutexLock lock(&mutex_);
    session.swap(lane.session);
  }
  // Without the lock: that may wait. Before Remove() is told: the source must go with it.
  session.reset();
  absl::MutexLock lock(&mutex_);
  // The thread may be joined much later, and the peer must see the end.
  lane.socket.Reset();
  lane.ended = true;
}

}  // namespace postcopy
