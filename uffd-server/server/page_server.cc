#include "server/page_server.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "platform/tcp_socket.h"
#include "server/page_lane.h"
#include "server/status_of.h"

namespace postcopy {

absl::StatusOr<std::unique_ptr<PageServer>> PageServer::Listen(
    const std::vector<std::string>& addresses) {
  std::unique_ptr<PageServer> server(new PageServer);
  for (const std::string& address : addresses) {
    auto listener = ListenTcp(address);
    if (!listener.ok()) return StatusOf(listener.error());
    const auto port = LocalPort(listener->get());
    if (!port.ok()) return StatusOf(port.error());
    server->addresses_.push_back(address.substr(0, address.rfind(':') + 1) + std::to_string(*port));
    server->listeners_.push_back(std::move(*listener));
  }
  for (const UniqueFd& listener : server->listeners_) {
    server->acceptors_.emplace_back([raw = server.get(), fd = listener.get()] { raw->AcceptLoop(fd); });
  }
  return server;
}

PageServer::~PageServer() {
  for (const UniqueFd& listener : listeners_) Shutdown(listener.get());
  for (std::thread& acceptor : acceptors_) acceptor.join();
  {
    absl::MutexLock lock(&mutex_);
    sessions_.clear();
    for (LaneThread& lane : lanes_) {
      if (!lane.ended) Shutdown(lane.socket.get());
    }
  }
  // No acceptor is left, so the list no longer changes.
  for (LaneThread& lane : lanes_) lane.thread.join();
}

void PageServer::Add(const SessionId& id, std::shared_ptr<PageSource> source) {
  auto session = std::make_shared<ServedSession>();
  session->source = std::move(source);
  absl::MutexLock lock(&mutex_);
  sessions_[id] = std::move(session);
}

void PageServer::Freeze(const SessionId& id) {
  absl::MutexLock lock(&mutex_);
  const auto found = sessions_.find(id);
  if (found != sessions_.end()) found->second->frozen.store(true, std::memory_order_relaxed);
}

void PageServer::Remove(const SessionId& id) {
  absl::MutexLock lock(&mutex_);
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  const std::shared_ptr<ServedSession> session = found->second;
  sessions_.erase(found);
  for (LaneThread& lane : lanes_) {
    if (lane.session == session) Shutdown(lane.socket.get());
  }
  const auto none_left = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    for (const LaneThread& lane : lanes_) {
      if (lane.session == session && !lane.ended) return false;
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
  for (LaneThread& lane : ended) lane.thread.join();
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
    absl::MutexLock lock(&mutex_);
    if (!MakeRoom()) {
      spdlog::warn("page server: lane refused, peer {}, cause {} lanes are open", peer, kMaxLanes);
      continue;
    }
    LaneThread& lane = lanes_.emplace_back();
    lane.socket = std::move(*socket);
    lane.peer = std::move(peer);
    lane.thread = std::thread([this, &lane] { RunLane(lane); });
  }
}

std::shared_ptr<ServedSession> PageServer::Join(LaneThread& lane, const wire::Hello& hello) {
  absl::MutexLock lock(&mutex_);
  const auto found = sessions_.find(hello.session);
  if (found == sessions_.end() || lane.closing) return nullptr;
  // Of a source that stood still a destination has tried several connections, and given all but one up.
  if (HasEnded(lane.socket.get())) return nullptr;
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
  return lane.session;
}

void PageServer::RunLane(LaneThread& lane) {
  const std::string reason = ServeLane(
      lane.socket.get(), [&](const wire::Hello& hello) { return Join(lane, hello); });
  if (!reason.empty()) spdlog::info("page server: lane closed, peer {}, cause {}", lane.peer, reason);
  absl::MutexLock lock(&mutex_);
  // The thread may be joined much later: the source must go with Remove(), the peer must see the end.
  lane.session.reset();
  lane.socket.Reset();
  lane.ended = true;
}

}  // namespace postcopy
