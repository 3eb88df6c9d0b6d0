#include "transport/tcp_transport.h"

#include "platform/tcp_socket.h"

namespace postcopy {
namespace {

using wire::Encoding;
using wire::PageFrame;
using wire::PageFrameReader;

constexpr size_t kUrgentBufferBytes = PageFrameReader::kMinCapacityBytes;
// Several runs: fewer calls to the kernel, and still within a second-level cache.
constexpr size_t kBulkBufferBytes = 512 << 10;

Error Broken(std::string cause) {
  return {ErrorCode::kProtocol, "page server: " + std::move(cause)};
}

Error FromErrorFrame(std::span<const std::byte> body) {
  const auto fields = wire::DecodeError(body);
  if (!fields.ok()) return fields.error();
  const bool later = fields->code == wire::PageError::kNotNow;
  return {later ? ErrorCode::kUnavailable : ErrorCode::kProtocol,
          "page server refused: " + fields->text};
}

// Reads frames until WELCOME.
Result<wire::Welcome> AwaitWelcome(int socket, const std::string& address) {
  PageFrameReader reader(PageFrameReader::kMinCapacityBytes);
  for (;;) {
    const auto received = Receive(socket, reader.WritableSpace());
    switch (received.outcome) {
      case SocketOutcome::kDone: reader.Commit(received.bytes); break;
      case SocketOutcome::kTimedOut:
        return Error{ErrorCode::kTimeout, "greet tcp://" + address + ": no answer"};
      case SocketOutcome::kClosed:
        return Error{ErrorCode::kUnavailable, "greet tcp://" + address + ": connection closed"};
      case SocketOutcome::kFailed: return ErrnoError(received.error, "greet tcp://" + address);
    }
    PageFrameReader::Item item;
    switch (reader.Next(item)) {
      case PageFrameReader::Outcome::kNeedMore: continue;
      case PageFrameReader::Outcome::kFrame: break;
      case PageFrameReader::Outcome::kPiece:
      case PageFrameReader::Outcome::kMalformed: return Broken("malformed greeting");
    }
    if (static_cast<PageFrame>(item.header.type) == PageFrame::kError) {
      return FromErrorFrame(item.bytes);
    }
    if (static_cast<PageFrame>(item.header.type) != PageFrame::kWelcome) {
      return Broken("greeting expected");
    }
    return wire::DecodeWelcome(item.bytes);
  }
}

}  // namespace

Result<UniqueFd> TcpTransport::OpenLane(const TcpTransportOptions& options, wire::Lane lane,
                                        MemoryLayout& layout) {
  Error last{ErrorCode::kInvalidArgument, "page server: no address was given"};
  for (const std::string& address : options.addresses) {
    auto socket = ConnectTcp(address, options.connect_timeout);
    if (!socket.ok()) {
      last = socket.error();
      continue;
    }
    SetReceiveTimeout(socket->get(), options.connect_timeout);
    const auto hello = wire::EncodeHello({wire::kPageProtocolVersion, lane, options.session});
    SendAll(socket->get(), hello);  // a failure shows in what is received
    auto welcome = AwaitWelcome(socket->get(), address);
    if (!welcome.ok()) {
      last = welcome.error();
      continue;
    }
    if (welcome->version != wire::kPageProtocolVersion) {
      last = Broken("it chose version " + std::to_string(welcome->version) + ", offered was " +
                    std::to_string(wire::kPageProtocolVersion));
      continue;
    }
    SetReceiveTimeout(socket->get(), std::chrono::milliseconds(0));
    EnableKeepalive(socket->get());
    layout = std::move(welcome->layout);
    return socket;
  }
  return last;
}

Result<std::unique_ptr<PageTransport>> TcpTransport::Connect(const TcpTransportOptions& options) {
  std::unique_ptr<TcpTransport> transport(new TcpTransport);
  auto urgent = OpenLane(options, wire::Lane::kUrgent, transport->layout_);
  if (!urgent.ok()) return urgent.error();
  transport->urgent_.socket = std::move(*urgent);
  for (size_t i = 0; i < options.bulk_lanes; ++i) {
    MemoryLayout again;
    auto bulk = OpenLane(options, wire::Lane::kBulk, again);
    if (!bulk.ok()) return bulk.error();
    if (again.regions != transport->layout_.regions) {
      return Broken("two lanes of one session differ in their layout");
    }
    transport->bulk_.push_back(std::make_unique<LaneState>());
    transport->bulk_.back()->socket = std::move(*bulk);
  }
  return std::unique_ptr<PageTransport>(std::move(transport));
}

TcpTransport::~TcpTransport() { Stop(); }

Result<void> TcpTransport::Start(PageSink& sink) {
  sink_ = &sink;
  // Here, so that the threads allocate nothing.
  urgent_.reader = std::make_unique<PageFrameReader>(kUrgentBufferBytes);
  for (auto& lane : bulk_) lane->reader = std::make_unique<PageFrameReader>(kBulkBufferBytes);
  auto urgent = QuietThread::Start("pc-urgent", [this] { ReceiveLoop(urgent_, 0, true); });
  if (!urgent.ok()) return urgent.error();
  urgent_.receiver.emplace(std::move(*urgent));
  for (size_t i = 0; i < bulk_.size(); ++i) {
    auto bulk = QuietThread::Start("pc-bulk" + std::to_string(i),
                                   [this, i] { ReceiveLoop(*bulk_[i], i, false); });
    if (!bulk.ok()) return bulk.error();
    bulk_[i]->receiver.emplace(std::move(*bulk));
  }
  return {};
}

bool TcpTransport::Send(LaneState& lane, std::span<const std::byte> bytes) {
  MutexLock lock(lane.send_mutex);
  return SendAll(lane.socket.get(), bytes).outcome == SocketOutcome::kDone;
}

bool TcpTransport::Request(uint32_t id, PageAddress page) {
  return Send(urgent_, wire::EncodeRequest({id, page}));
}

bool TcpTransport::RequestMap() { return Send(urgent_, wire::EncodeMapRequest()); }

bool TcpTransport::Grant(size_t lane, RegionId region, PageRange range) {
  return Send(*bulk_[lane], wire::EncodeGrant({region, range}));
}

bool TcpTransport::Dispatch(const PageFrameReader::Item& item, bool is_piece, size_t bulk_index,
                            bool urgent, std::optional<Error>& cause) {
  const auto type = static_cast<PageFrame>(item.header.type);
  const auto encoding = static_cast<Encoding>(item.header.encoding);
  if (is_piece) {
    const bool is_page = type == PageFrame::kPage;
    const PageRange range = is_page ? PageRange{item.page.page.page, 1} : item.run.range;
    const RegionId region = is_page ? item.page.page.region : item.run.region;
    if (is_page != urgent || !layout_.Contains(region, range)) {
      cause = Broken("page content that was not asked for on this lane");
      return false;
    }
    if (is_page) {
      sink_->OnPage(item.page.id, item.page.page, encoding, item.bytes);
    } else {
      sink_->OnRun(bulk_index, region, range, encoding, item.bytes);
    }
    return true;
  }
  if (type == PageFrame::kMap && urgent) {
    const auto map = wire::DecodeMap(item.header, item.bytes);
    bool fits = map.ok() && map->region.value < layout_.regions.size();
    for (size_t i = 0; fits && i < map->extents.size(); ++i) {
      fits = layout_.Contains(map->region, map->extents[i]);
    }
    if (!fits) {
      cause = Broken("malformed hole map");
      return false;
    }
    sink_->OnMap(*map);
    return true;
  }
  cause = type == PageFrame::kError ? FromErrorFrame(item.bytes)
                                    : Broken("unexpected frame of type " +
                                             std::to_string(item.header.type));
  return false;
}

void TcpTransport::ReceiveLoop(LaneState& lane, size_t bulk_index, bool urgent) {
  PageFrameReader& reader = *lane.reader;
  std::optional<Error> cause;
  for (bool alive = true; alive;) {
    const auto received = Receive(lane.socket.get(), reader.WritableSpace());
    if (received.outcome != SocketOutcome::kDone) {
      if (received.error != 0) cause = ErrnoError(received.error, "receive from the page server");
      break;
    }
    reader.Commit(received.bytes);
    PageFrameReader::Item item;
    for (bool more = true; more && alive;) {
      const auto outcome = reader.Next(item);
      switch (outcome) {
        case PageFrameReader::Outcome::kNeedMore: more = false; break;
        case PageFrameReader::Outcome::kPiece:
        case PageFrameReader::Outcome::kFrame:
          alive = Dispatch(item, outcome == PageFrameReader::Outcome::kPiece, bulk_index, urgent,
                           cause);
          break;
        case PageFrameReader::Outcome::kMalformed:
          cause = Broken("malformed frame");
          alive = false;
          break;
      }
    }
  }
  if (!stopping_.load(std::memory_order_acquire)) {
    Shutdown(lane.socket.get());
    sink_->OnLaneDown(cause.value_or(
        Error{ErrorCode::kUnavailable, "page server: the connection was closed"}));
  }
}

void TcpTransport::Stop() {
  // Pairs with the load in ReceiveLoop.
  if (stopping_.exchange(true, std::memory_order_acq_rel)) return;
  const auto end = [](LaneState& lane) {
    if (!lane.socket.valid()) return;
    TrySend(lane.socket.get(), wire::EncodeGoodbye());
    Shutdown(lane.socket.get());
    if (lane.receiver.has_value()) lane.receiver->Join();
  };
  end(urgent_);
  for (auto& lane : bulk_) end(*lane);
}

}  // namespace postcopy
