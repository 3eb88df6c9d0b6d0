// The engine half of the C ABI: puts transport, device and engine together for one process.
//
// Not responsible for what they do. No exception leaves a function.
#include <postcopy/postcopy.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "abi/errno_of.h"
#include "attach/arming.h"
#include "engine/engine.h"
#include "engine/userfault_device.h"
#include "platform/duplicate_fd.h"
#include "transport/tcp_transport.h"

struct postcopy_engine {
  // In this order: the engine ends before what it uses.
  std::vector<postcopy::UniqueFd> ram_files;
  std::unique_ptr<postcopy::UserfaultDevice> device;
  std::unique_ptr<postcopy::Engine> engine;
  bool finished = false;
  std::string error;
};

namespace {

using postcopy::BlockTable;
using postcopy::Error;
using postcopy::ErrorCode;
using postcopy::ErrnoOf;
using postcopy::MappedRegion;
using postcopy::MemoryLayout;
using postcopy::Result;
using postcopy::UniqueFd;

// What the first release had, as numbers: a field that is added must not change them.
constexpr size_t kFirstEngineOptionsBytes = 64;
constexpr size_t kFirstFiguresBytes = 64;
static_assert(sizeof(postcopy_engine_options) >= kFirstEngineOptionsBytes);
static_assert(sizeof(postcopy_figures) >= kFirstFiguresBytes);
constexpr unsigned kDefaultBulkLanes = 2;
constexpr unsigned kMaxBulkLanes = 16;

bool IsUsable(const postcopy_region& region) {
  const uint64_t bits =
      reinterpret_cast<uintptr_t>(region.address) | region.size_bytes | region.file_offset;
  return region.name != nullptr && region.size_bytes != 0 && bits % postcopy::kPageBytes == 0;
}

// The caller's regions in the page server's order, with descriptors that belong to `ram_files`.
Result<std::vector<BlockTable::Block>> Order(const MemoryLayout& layout,
                                             const postcopy_engine_options& options,
                                             std::vector<UniqueFd>& ram_files) {
  const Error refusal{ErrorCode::kInvalidArgument, "regions differ from the page server's"};
  if (options.region_count != layout.regions.size()) return refusal;
  std::vector<BlockTable::Block> ordered;
  for (const postcopy::Region& wanted : layout.regions) {
    const auto end = options.regions + options.region_count;
    const auto found = std::find_if(options.regions, end, [&](const postcopy_region& region) {
      return IsUsable(region) && wanted.name == region.name;
    });
    if (found == end || found->size_bytes != wanted.size_bytes) return refusal;
    BlockTable::Block block;
    block.block.kind = postcopy::wire::BlockKind::kAnonymous;
    block.block.address = reinterpret_cast<uintptr_t>(found->address);
    block.block.size_bytes = found->size_bytes;
    if (found->ram_file >= 0) {
      auto file = postcopy::DuplicateFd(found->ram_file);
      if (!file.ok()) return file.error();
      block.block.kind = postcopy::wire::BlockKind::kSharedFile;
      block.block.file_offset = found->file_offset;
      block.ram_file = file->get();
      ram_files.push_back(std::move(*file));
    }
    ordered.push_back(std::move(block));
  }
  return ordered;
}

// A userfaultfd of this process with the blocks empty and registered.
Result<UniqueFd> ArmHere(const std::vector<BlockTable::Block>& blocks) {
  auto page_table = postcopy::PageTableView::Open();
  if (!page_table.ok()) return page_table.error();
  const auto device = postcopy::OpenUserfaultDevice();
  return postcopy::ArmBlocks(device.ok() ? device->get() : -1, blocks, *page_table);
}

Result<std::vector<MappedRegion>> RegionsOf(const std::vector<BlockTable::Block>& blocks) {
  std::vector<MappedRegion> regions;
  for (const BlockTable::Block& block : blocks) {
    const auto region = postcopy::MakeMappedRegion(block.block.address, block.block.size_bytes,
                                                   block.ram_file, block.block.file_offset);
    if (!region.ok()) return region.error();
    regions.push_back(*region);
  }
  return regions;
}

Result<std::unique_ptr<postcopy_engine>> Make(const postcopy_engine_options& options) {
  postcopy::TcpTransportOptions lanes;
  lanes.addresses.assign(options.addresses, options.addresses + options.address_count);
  std::copy_n(reinterpret_cast<const std::byte*>(options.session), lanes.session.bytes.size(),
              lanes.session.bytes.begin());
  lanes.bulk_lanes = options.bulk_lanes == 0 ? kDefaultBulkLanes : options.bulk_lanes;
  auto transport = postcopy::TcpTransport::Connect(lanes);
  if (!transport.ok()) return transport.error();

  auto made = std::make_unique<postcopy_engine>();
  const auto blocks = Order((*transport)->layout(), options, made->ram_files);
  if (!blocks.ok()) return blocks.error();
  auto regions = RegionsOf(*blocks);
  if (!regions.ok()) return regions.error();
  auto userfault = options.userfault >= 0 ? postcopy::DuplicateFd(options.userfault)
                                          : ArmHere(*blocks);
  if (!userfault.ok()) return userfault.error();
  auto waiter = postcopy::Waiter::Create();
  if (!waiter.ok()) return waiter.error();
  made->device = std::make_unique<postcopy::UserfaultDevice>(std::move(*userfault),
                                                             std::move(*waiter));
  made->engine = std::make_unique<postcopy::Engine>(std::move(*transport), *made->device,
                                                    std::move(*regions));
  const auto started = made->engine->Start();
  if (!started.ok()) return started.error();
  made->engine->StartBulk();
  made->engine->GuestRuns();
  return made;
}

}  // namespace

extern "C" {

int postcopy_engine_start(const postcopy_engine_options* options, postcopy_engine** engine) {
  if (options == nullptr || engine == nullptr || options->size < kFirstEngineOptionsBytes) {
    return -EINVAL;
  }
  postcopy_engine_options known{};
  std::memcpy(&known, options, std::min(options->size, sizeof known));
  options = &known;
  if (options->addresses == nullptr || options->address_count == 0 ||
      options->regions == nullptr || options->bulk_lanes > kMaxBulkLanes) {
    return -EINVAL;
  }
  try {
    auto made = Make(*options);
    if (!made.ok()) return ErrnoOf(made.error().code);
    *engine = made->release();
    return 0;
  } catch (const std::bad_alloc&) {
    return -ENOMEM;
  }
}

int postcopy_engine_wait(postcopy_engine* engine, unsigned timeout_ms) {
  if (engine == nullptr) return -EINVAL;
  if (engine->finished) return 0;
  engine->error.clear();
  try {
    switch (engine->engine->WaitComplete(std::chrono::milliseconds(timeout_ms))) {
      case postcopy::Engine::Wait::kTimeout: {
        if (const auto stall = engine->engine->stall()) engine->error = stall->cause.message;
        const auto interruption = engine->engine->interruption();
        if (interruption.has_value()) engine->error = interruption->cause.message;
        return -ETIMEDOUT;
      }
      case postcopy::Engine::Wait::kComplete: {
        const auto finished = engine->engine->Finish();
        if (finished.ok()) {
          engine->finished = true;
          return 0;
        }
        engine->error = finished.error().message;
        return -EPIPE;
      }
      case postcopy::Engine::Wait::kFailed:
      case postcopy::Engine::Wait::kStopped: break;
    }
    if (const auto failure = engine->engine->failure()) engine->error = failure->message;
    return -EPIPE;
  } catch (const std::bad_alloc&) {
    return -ENOMEM;
  }
}

const char* postcopy_engine_error(postcopy_engine* engine) {
  return engine == nullptr ? "" : engine->error.c_str();
}

int postcopy_engine_get_figures(postcopy_engine* engine, postcopy_figures* figures) {
  if (engine == nullptr || figures == nullptr || figures->size < kFirstFiguresBytes) return -EINVAL;
  const postcopy::EngineFigures now = engine->engine->Figures();
  postcopy_figures filled{};
  filled.size = figures->size;
  filled.ram_bytes = now.ram_bytes;
  filled.data_bytes = now.data_bytes;
  filled.present_bytes = now.present_bytes;
  filled.faults = now.faults.faults;
  filled.fault_p50_us = now.faults.p50_us;
  filled.fault_p99_us = now.faults.p99_us;
  filled.fault_max_us = now.faults.max_us;
  // An older caller has room for less, a newer one for more, of which this release knows nothing.
  std::memset(figures, 0, figures->size);
  std::memcpy(figures, &filled, std::min(filled.size, sizeof filled));
  return 0;
}

void postcopy_engine_free(postcopy_engine* engine) { delete engine; }

}  // extern "C"
