#include "transport/tcp_transport.h"

#include <algorithm>

#include "platform/tcp_socket.h"
#include "transport/tcp_greeting.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using wire::PageFrameReader;

constexpr size_t kUrgentBufferBytes = PageFrameReader::kMinCapacityBytes;
// Several runs: fewer calls to the kernel, and still within a second-level cache.
constexpr size_t kBulkBufferBytes = 512 << 10;
// How often the keeper looks whether the lanes are silent.
constexpr milliseconds kLookEvery{250};
// Pauses after a source that could be reached and did not serve double from the first to the longest: one
// that has just been restarted refuses until it knows its sessions, one that has given this session up
// for ever.
constexpr milliseconds kFirstPause{50};
constexpr milliseconds kLongestPause{1000};
constexpr milliseconds kLongestPauseOfRefused{5000};

}  // namespace

TcpTransport::TcpTransport(const TcpTransportOptions& options, TcpConnector connector)
    : options_(options), connector_(std::move(connector)) {
  for (size_t place = 0; place <= options.bulk_lanes; ++place) {
    lanes_.push_back(std::make_unique<LaneState>());
    lanes_.back()->place = place;
  }
}

Result<std::unique_ptr<TcpTransport>> TcpTransport::Make(const TcpTransportOptions& options) {
  std::vector<TcpEndpoint> endpoints;
  Error cause{ErrorCode::kInvalidArgument, "page server: no address was given"};
  for (const std::string& address : options.addresses) {
    const auto resolved = ResolveTcp(address);
    if (resolved.ok()) {
      endpoints.insert(endpoints.end(), resolved->begin(), resolved->end());
    } else {
      cause = resolved.error();
    }
  }
  if (endpoints.empty()) return cause;
  auto connector = TcpConnector::Create(std::move(endpoints));
  if (!connector.ok()) return connector.error();
  return std::unique_ptr<TcpTransport>(new TcpTransport(options, std::move(*connector)));
}

Result<std::unique_ptr<PageTransport>> TcpTransport::Connect(const TcpTransportOptions& options) {
  auto made = Make(options);
  if (!made.ok()) return made.error();
  std::unique_ptr<TcpTransport> transport = std::move(*made);
  for (auto& lane : transport->lanes_) {
    const auto opened = transport->OpenLane(*lane, options.connect_timeout, true);
    if (!opened.ok()) return opened.error();
  }
  return std::unique_ptr<PageTransport>(std::move(transport));
}

Result<std::unique_ptr<PageTransport>> TcpTransport::ConnectLater(
    const TcpTransportOptions& options, MemoryLayout layout) {
  auto made = Make(options);
  if (!made.ok()) return made.error();
  std::unique_ptr<TcpTransport> transport = std::move(*made);
  transport->layout_ = std::move(layout);
  transport->NoteBreak({ErrorCode::kUnavailable, "page server: not connected yet"});
  return std::unique_ptr<PageTransport>(std::move(transport));
}

TcpTransport::~TcpTransport() { Stop(); }

Result<void> TcpTransport::OpenLane(LaneState& lane, milliseconds timeout, bool once) {
  Result<void> outcome;
  // Whoever accepts and does not greet is passed over.
  for (size_t tried = 0; tried < connector_.count_endpoints(); ++tried) {
    const size_t first = (good_endpoint_ + tried) % connector_.count_endpoints();
    auto connected = connector_.Connect(timeout, first, once);
    if (!connected.ok()) return connected.error();
    reached_ = true;
    outcome = Welcomed(lane, std::move(*connected), timeout);
    if (outcome.ok()) return outcome;
    MutexLock lock(mutex_);
    if (stopping_) return outcome;
  }
  return outcome;
}

Result<void> TcpTransport::Welcomed(LaneState& lane, TcpConnector::Connected connected,
                                    milliseconds timeout) {
  const int socket = connected.socket.get();
  {
    // From here on Stop() reaches it.
    MutexLock sending(lane.send_mutex);
    MutexLock lock(lane.socket_mutex);
    lane.socket = std::move(connected.socket);
  }
  {
    MutexLock lock(mutex_);
    if (stopping_) return Error{ErrorCode::kUnavailable, "greet: given up"};
  }
  const auto kind = lane.urgent() ? wire::Lane::kUrgent : wire::Lane::kBulk;
  auto welcome = Greet(socket, {wire::kPageProtocolVersion, kind, options_.session}, timeout,
                       connected.address);
  if (!welcome.ok()) return welcome.error();
  EnableKeepalive(socket);
  SetSendTimeout(socket, kSilence);  // whoever sends holds others up
  if (layout_.regions.empty()) {
    layout_ = std::move(welcome->layout);
  } else if (welcome->layout.regions != layout_.regions) {
    return Broken("two lanes of one session differ in their layout");
  }
  good_endpoint_ = connected.endpoint;
  MutexLock sending(lane.send_mutex);
  lane.up = true;
  return {};
}

std::chrono::nanoseconds TcpTransport::RoundTrip() {
  LaneState& urgent = *lanes_.front();
  MutexLock lock(urgent.socket_mutex);
  return ShortestRoundTrip(urgent.socket.get());
}

Result<void> TcpTransport::StartReceiver(LaneState& lane) {
  lane.reader = std::make_unique<PageFrameReader>(lane.urgent() ? kUrgentBufferBytes
                                                                : kBulkBufferBytes);
  const std::string name = lane.urgent() ? "pc-urgent" : "pc-bulk" + std::to_string(lane.place - 1);
  auto receiver = QuietThread::Start(name, [this, &lane] { ReceiveLoop(lane); });
  if (!receiver.ok()) return receiver.error();
  lane.receiver.emplace(std::move(*receiver));
  return {};
}

Result<void> TcpTransport::Start(PageSink& sink) {
  sink_ = &sink;
  for (auto& lane : lanes_) {
    if (!lane->socket.valid()) continue;  // to be made later
    auto started = StartReceiver(*lane);
    if (!started.ok()) return started;
  }
  auto keeper = QuietThread::Start("pc-lanes", [this] { Keep(); });
  if (!keeper.ok()) return keeper.error();
  keeper_.emplace(std::move(*keeper));
  return {};
}

bool TcpTransport::Send(LaneState& lane, std::span<const std::byte> bytes, uint64_t pages) {
  if (lane.awaited.load(std::memory_order_relaxed) <= 0) {
    lane.heard_ns.store(NowNs(), std::memory_order_relaxed);
  }
  // Release: whoever sees that pages are awaited sees since when.
  lane.awaited.fetch_add(static_cast<int64_t>(pages), std::memory_order_release);
  if (SendAll(lane.socket.get(), bytes).outcome == SocketOutcome::kDone) return true;
  Shutdown(lane.socket.get());  // a frame may have gone in part
  return false;
}

bool TcpTransport::Request(uint32_t id, PageAddress page) {
  LaneState& lane = *lanes_[0];
  MutexLock lock(lane.send_mutex);
  if (!lane.up) return false;
  return Send(lane, wire::EncodeRequest({lane.orders.AddRequest(id, page), page}), 1);
}

bool TcpTransport::RequestMap() {
  LaneState& lane = *lanes_[0];
  MutexLock lock(lane.send_mutex);
  if (!lane.up) return false;
  return !lane.orders.AddMap() || Send(lane, wire::EncodeMapRequest(), 1);
}

bool TcpTransport::Grant(size_t place, RegionId region, PageRange range) {
  LaneState& lane = *lanes_[place + 1];
  MutexLock lock(lane.send_mutex);
  if (!lane.up || !lane.orders.AddGrant(region, range)) return false;
  return Send(lane, wire::EncodeGrant({region, range}), range.count_pages);
}

void TcpTransport::NoteBreak(const Error& cause) {
  MutexLock lock(mutex_);
  if (!broken_.has_value()) broken_ = cause;
  changed_.NotifyAll();
}

void TcpTransport::Keep() {
  milliseconds pause{0};
  while (auto cause = AwaitBreak()) {
    if (served_.exchange(false, std::memory_order_relaxed)) pause = milliseconds::zero();
    for (;;) {
      EndLanes();
      sink_->OnInterrupted(*cause);
      if (!Pause(pause)) return;
      const bool refused = cause->code == ErrorCode::kProtocol;
      pause = std::clamp(2 * pause, kFirstPause, refused ? kLongestPauseOfRefused : kLongestPause);
      reached_ = false;
      const auto restored = RestoreLanes();
      if (restored.ok()) break;
      cause = restored.error();
      if (!reached_) pause = milliseconds::zero();  // the connector has waited
    }
  }
}

std::optional<Error> TcpTransport::AwaitBreak() {
  MutexLock lock(mutex_);
  for (;;) {
    if (stopping_) return std::nullopt;
    if (broken_.has_value()) return broken_;
    if (IsSilent()) {
      return Error{ErrorCode::kTimeout, "page server: silent for " +
                                            std::to_string(kSilence.count()) + " ms"};
    }
    changed_.WaitFor(mutex_, kLookEvery);
  }
}

bool TcpTransport::IsSilent() const {
  const auto silent_for = [](const LaneState& lane) {
    if (lane.awaited.load(std::memory_order_acquire) <= 0) return std::chrono::nanoseconds::zero();
    // What has come and waits for us to take it is no silence of the source's.
    if (ReadableBytes(lane.socket.get()) > 0) return std::chrono::nanoseconds::zero();
    return std::chrono::nanoseconds(NowNs() - lane.heard_ns.load(std::memory_order_relaxed));
  };
  bool any_speaks = false;
  for (const auto& lane : lanes_) {
    any_speaks |= lane->awaited.load(std::memory_order_acquire) > 0 && silent_for(*lane) <= kSilence;
  }
  for (const auto& lane : lanes_) {
    const bool patient = any_speaks && !lane->urgent();
    if (silent_for(*lane) > (patient ? 4 * kSilence : kSilence)) return true;
  }
  return false;
}

Result<void> TcpTransport::RestoreLanes() {
  for (auto& lane : lanes_) {
    const auto opened = OpenLane(*lane, kSilence, false);
    if (!opened.ok()) return opened;
    auto started = StartReceiver(*lane);
    if (!started.ok()) return started;
    if (lane->urgent()) sink_->OnUrgentRestored();
  }
  sink_->OnBulkRestored();
  return {};
}

void TcpTransport::CloseSocket(LaneState& lane) {
  MutexLock lock(lane.socket_mutex);
  if (lane.socket.valid()) Shutdown(lane.socket.get());
}

void TcpTransport::EndLanes() {
  for (auto& lane : lanes_) CloseSocket(*lane);
  for (auto& lane : lanes_) {
    if (lane->receiver.has_value()) lane->receiver->Join();
    lane->receiver.reset();
    MutexLock sending(lane->send_mutex);  // whoever was sending has failed by now
    lane->up = false;
    lane->awaited.store(0, std::memory_order_relaxed);
    lane->orders.Clear();
  }
  MutexLock lock(mutex_);
  broken_.reset();
}

bool TcpTransport::Pause(milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  MutexLock lock(mutex_);
  for (;;) {
    const auto left = end - std::chrono::steady_clock::now();
    if (stopping_ || left <= milliseconds::zero()) return !stopping_;
    changed_.WaitFor(mutex_, left);
  }
}

void TcpTransport::Stop() {
  {
    MutexLock lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
    changed_.NotifyAll();
  }
  connector_.Stop();
  for (auto& lane : lanes_) {
    MutexLock lock(lane->socket_mutex);
    if (!lane->socket.valid()) continue;
    TrySend(lane->socket.get(), wire::EncodeGoodbye());
    Shutdown(lane->socket.get());
  }
  if (keeper_.has_value()) keeper_->Join();
  for (auto& lane : lanes_) {
    if (lane->receiver.has_value()) lane->receiver->Join();
  }
}

}  // namespace postcopy
