#include "server/map_answer.h"

#include <algorithm>

#include "wire/page_protocol.h"

namespace postcopy {
namespace {

Result<HoleMap> FindData(const std::shared_ptr<PageSource>& source) {
  HoleMap map;
  for (uint32_t region = 0; region < source->layout().regions.size(); ++region) {
    auto extents = source->DataExtents({region});
    if (!extents.ok()) return extents.error();
    map.push_back(std::move(*extents));
  }
  return map;
}

// The whole answer, frame by frame; `send` says whether to go on.
void SendMap(const HoleMap& map, const std::function<bool(std::span<const std::byte>)>& send) {
  for (uint32_t region = 0; region < map.size(); ++region) {
    const std::vector<PageRange>& extents = map[region];
    size_t sent = 0;
    do {
      const size_t now = std::min<size_t>(extents.size() - sent, wire::kMaxMapExtents);
      wire::MapFields frame;
      frame.region = {region};
      frame.extents.assign(extents.begin() + static_cast<ptrdiff_t>(sent),
                           extents.begin() + static_cast<ptrdiff_t>(sent + now));
      sent += now;
      frame.last = region + 1 == map.size() && sent == extents.size();
      if ((now > 0 || frame.last) && !send(wire::EncodeMap(frame))) return;
    } while (sent < extents.size());
  }
}

}  // namespace

std::shared_future<Result<HoleMap>> ServedSession::FindMap() {
  MutexLock lock(map_mutex);
  if (!map.valid()) {
    map = std::async(std::launch::async, [from = source] { return FindData(from); }).share();
  }
  return map;
}

MapAnswer::MapAnswer(std::shared_ptr<ServedSession> session,
                     std::function<bool(std::span<const std::byte>)> send,
                     std::function<void(const std::string&)> fail)
    : session_(std::move(session)),
      send_(std::move(send)),
      fail_(std::move(fail)),
      thread_([this] { Run(); }) {}

MapAnswer::~MapAnswer() {
  ending_.store(true, std::memory_order_relaxed);
  thread_.join();
}

void MapAnswer::Run() {
  const auto found = session_->FindMap();
  while (found.wait_for(kSignOfLife) != std::future_status::ready) {
    if (ending_.load(std::memory_order_relaxed) || !send_(wire::EncodeMap({}))) return;
  }
  if (!found.get().ok()) return fail_(found.get().error().message);
  SendMap(*found.get(), [this](std::span<const std::byte> frame) {
    return !ending_.load(std::memory_order_relaxed) && send_(frame);
  });
}

}  // namespace postcopy
