// The receiving half of TcpTransport: takes frames, checks that each answers what was requested on its
// lane, passes it on. On the lanes' own threads.
#include "platform/tcp_socket.h"
#include "transport/tcp_greeting.h"
#include "transport/tcp_transport.h"

namespace postcopy {

using wire::Encoding;
using wire::PageFrame;
using wire::PageFrameReader;

void TcpTransport::Arrived(LaneState& lane, uint64_t pages) {
  lane.awaited.fetch_sub(static_cast<int64_t>(pages), std::memory_order_relaxed);
  if (!served_.load(std::memory_order_relaxed)) served_.store(true, std::memory_order_relaxed);
}

bool TcpTransport::TakeOrder(LaneState& lane, const wire::PageFields& page,
                             const wire::RangeFields& run, uint32_t& id) {
  if (!lane.urgent()) {
    return layout_.Contains(run.region, run.range) &&
           lane.orders.TakeGranted(run.region, run.range);
  }
  const auto request = lane.orders.TakeRequest(page.id, page.page);
  if (request.has_value()) id = *request;
  return request.has_value() && layout_.Contains(page.page.region, {page.page.page, 1});
}

std::optional<Error> TcpTransport::DispatchPiece(const PageFrameReader::Item& item,
                                                 LaneState& lane) {
  const bool is_page = static_cast<PageFrame>(item.header.type) == PageFrame::kPage;
  const auto encoding = static_cast<Encoding>(item.header.encoding);
  uint32_t id = 0;
  if (is_page != lane.urgent() || !TakeOrder(lane, item.page, item.run, id)) {
    return Broken("page content that was not requested on this lane");
  }
  if (is_page) {
    sink_->OnPage(id, item.page.page, encoding, item.bytes);
  } else {
    sink_->OnRun(lane.place - 1, item.run.region, item.run.range, encoding, item.bytes);
  }
  Arrived(lane, is_page ? 1 : item.run.range.count_pages);
  return std::nullopt;
}

std::optional<Error> TcpTransport::DispatchMap(const PageFrameReader::Item& item,
                                               LaneState& lane) {
  const auto map = wire::DecodeMap(item.header, item.bytes);
  bool fits = map.ok() && map->region.value < layout_.regions.size();
  for (size_t i = 0; fits && i < map->extents.size(); ++i) {
    fits = layout_.Contains(map->region, map->extents[i]);
  }
  if (!fits) return Broken("malformed hole map");
  if (!lane.orders.TakeMap(*map)) {
    return Broken("a hole map that was not requested, or is out of order");
  }
  sink_->OnMap(*map);
  if (map->last) Arrived(lane, 1);
  return std::nullopt;
}

std::optional<Error> TcpTransport::DispatchUnreadable(const PageFrameReader::Item& item,
                                                      LaneState& lane) {
  const auto fields = wire::DecodeUnreadable(item.bytes, lane.urgent());
  if (!fields.ok()) return fields.error();
  uint32_t id = 0;
  if (!TakeOrder(lane, fields->page, fields->run, id)) {
    return Broken("pages that it cannot read, and that were not requested on this lane");
  }
  const RegionId region = lane.urgent() ? fields->page.page.region : fields->run.region;
  const PageRange range = lane.urgent() ? PageRange{fields->page.page.page, 1} : fields->run.range;
  std::optional<size_t> bulk;
  if (!lane.urgent()) bulk = lane.place - 1;
  sink_->OnUnreadable(bulk, region, range,
                      {ErrorCode::kIo, "page server: it cannot read page " +
                                           std::to_string(range.first.value) + " of RAM block " +
                                           layout_.regions[region.value].name + ": " +
                                           fields->text});
  Arrived(lane, range.count_pages);
  return std::nullopt;
}

std::optional<Error> TcpTransport::Dispatch(const PageFrameReader::Item& item, bool is_piece,
                                            LaneState& lane) {
  if (is_piece) return DispatchPiece(item, lane);
  const auto type = static_cast<PageFrame>(item.header.type);
  if (type == PageFrame::kMap && lane.urgent()) return DispatchMap(item, lane);
  if (type == PageFrame::kUnreadable) return DispatchUnreadable(item, lane);
  if (type == PageFrame::kError) return RefusalIn(item.bytes);
  return Broken("unexpected frame of type " + std::to_string(item.header.type));
}

void TcpTransport::ReceiveLoop(LaneState& lane) {
  PageFrameReader& reader = *lane.reader;
  std::optional<Error> cause;
  for (bool alive = true; alive;) {
    const auto received = Receive(lane.socket.get(), reader.WritableSpace());
    if (received.outcome != SocketOutcome::kDone) {
      if (received.error != 0) cause = ErrnoError(received.error, "receive from the page server");
      break;
    }
    lane.heard_ns.store(NowNs(), std::memory_order_relaxed);
    reader.Commit(received.bytes);
    PageFrameReader::Item item;
    for (bool more = true; more && alive;) {
      const auto outcome = reader.Next(item);
      switch (outcome) {
        case PageFrameReader::Outcome::kNeedMore: more = false; break;
        case PageFrameReader::Outcome::kPiece:
        case PageFrameReader::Outcome::kFrame:
          cause = Dispatch(item, outcome == PageFrameReader::Outcome::kPiece, lane);
          alive = !cause.has_value();
          break;
        case PageFrameReader::Outcome::kMalformed:
          cause = Broken("malformed frame");
          alive = false;
          break;
      }
    }
  }
  NoteBreak(cause.value_or(
      Error{ErrorCode::kUnavailable, "page server: the connection was closed"}));
}

}  // namespace postcopy
