#include "server/map_answer.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>

#include "wire/page_protocol.h"

namespace postcopy {
namespace {

struct Found {
  HoleMap map;
  bool exact = true;
};

// Where memory is freed while it is looked at, a hole says nothing any more: all of it may have had
// data.
Found FindData(PageSource& source) {
  Found found;
  for (uint32_t region = 0; region < source.layout().regions.size(); ++region) {
    auto extents = source.DataExtents({region});
    if (!extents.ok() || source.HasLost({region})) {
      found.exact = false;
      spdlog::error("RAM block {}: where it had data cannot be found out: {}",
                    source.layout().regions[region].name,
                    extents.ok() ? "its memory was freed" : extents.error().message);
      extents = std::vector<PageRange>{{{0}, source.layout().regions[region].count_pages()}};
    }
    found.map.push_back(std::move(*extents));
  }
  return found;
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

ServedSession::~ServedSession() {
  std::optional<QuietThread> last;
  {
    MutexLock lock(map_mutex);
    if (finder.has_value()) last.emplace(std::move(*finder));
    finder.reset();
  }
  if (last.has_value()) last->Join();
}

Result<const HoleMap*> ServedSession::AwaitMap(std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  MutexLock lock(map_mutex);
  if (!finder.has_value()) {
    auto started = QuietThread::Start("ps-holes", [this] {
      auto [found, exact] = FindData(*source);
      MutexLock finding(map_mutex);
      map = std::move(found);
      map_is_exact = exact;
      map_found.NotifyAll();
    });
    if (!started.ok()) return started.error();
    finder.emplace(std::move(*started));
  }
  for (;;) {
    if (map.has_value()) return &*map;
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds::zero()) return nullptr;
    map_found.WaitFor(map_mutex, left);
  }
}

bool ServedSession::HadData(PageAddress page) {
  MutexLock lock(map_mutex);
  if (!map.has_value() || !map_is_exact) return true;
  const std::vector<PageRange>& extents = (*map)[page.region.value];
  const auto behind = std::upper_bound(
      extents.begin(), extents.end(), page.page,
      [](PageIndex wanted, const PageRange& extent) { return wanted < extent.first; });
  return behind != extents.begin() && std::prev(behind)->contains(page.page);
}

void ServedSession::NoteUnreadable(RegionId region, PageIndex page, const std::string& cause) {
  if (unreadable_noted.exchange(true, std::memory_order_relaxed)) return;
  spdlog::error("session {}, page {} of RAM block {} cannot be served: {}; the destination waits for it",
                name, page.value, source->layout().regions[region.value].name, cause);
}

MapAnswer::MapAnswer(std::shared_ptr<ServedSession> session,
                     std::function<bool(std::span<const std::byte>)> send,
                     std::function<void(const std::string&)> fail)
    : session_(std::move(session)), send_(std::move(send)), fail_(std::move(fail)) {}

Result<void> MapAnswer::Start() {
  auto started = QuietThread::Start("ps-map", [this] { Run(); });
  if (!started.ok()) return started.error();
  thread_.emplace(std::move(*started));
  return {};
}

MapAnswer::~MapAnswer() {
  ending_.store(true, std::memory_order_relaxed);
  if (thread_.has_value()) thread_->Join();
}

void MapAnswer::Run() {
  for (;;) {
    const auto found = session_->AwaitMap(kSignOfLife);
    if (!found.ok()) return fail_(found.error().message);
    if (ending_.load(std::memory_order_relaxed)) return;
    if (*found != nullptr) {
      return SendMap(**found, [this](std::span<const std::byte> frame) {
        return !ending_.load(std::memory_order_relaxed) && send_(frame);
      });
    }
    if (!send_(wire::EncodeMap({}))) return;
  }
}

}  // namespace postcopy
