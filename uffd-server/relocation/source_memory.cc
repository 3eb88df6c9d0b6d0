// The memory that a SourceSession serves: of a VMM that is there, and of one that has ended.
#include <fcntl.h>
#include <spdlog/spdlog.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "platform/ram_file.h"
#include "relocation/check.h"
#include "relocation/memory_match.h"
#include "relocation/source_session.h"
#include "server/status_of.h"

namespace postcopy {
namespace {

// The file that the block was in. `used` are those of the VMs that run now.
absl::StatusOr<UniqueFd> OpenRecordedFile(const RecordedBlock& block,
                                          const std::vector<FileBlock>& used) {
  const auto lost = [&block](std::string_view cause) {
    return absl::FailedPreconditionError(absl::StrCat(
        "RAM block ", block.name, ", which was in ", block.path, ", is lost: ", std::string(cause)));
  };
  UniqueFd file(open(block.path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file.valid()) {
    const int cause = errno;
    const std::string text = absl::StrCat("open ", block.path, ": ", std::string(strerror(cause)));
    if (cause == ENOENT || cause == ENOTDIR || cause == ELOOP) return lost(text);
    return absl::UnavailableError(text);
  }
  const auto id = QueryFileId(file.get());
  if (!id.ok()) return StatusOf(id.error());
  const auto size = QueryRamFileSize(file.get());
  if (!size.ok()) return StatusOf(size.error());
  if (*id != block.file_id || *size < block.file_offset + block.size_bytes) {
    return lost("another file is there now");
  }
  for (const FileBlock& other : used) {
    if (other.file_id == block.file_id) {
      return lost(absl::StrCat("VM ", other.vm, " (process ", other.pid, ") uses that file now"));
    }
  }
  return file;
}

}  // namespace

absl::StatusOr<std::shared_ptr<RamFileSource>> SourceSession::ServeMemory(
    const VmmDescription& vmm) {
  const auto matched = MatchMemory(record_, vmm, SessionRole::kSource);
  if (!matched.ok()) return matched.status();
  // The page source alone keeps the files: with it the memory goes.
  std::vector<VmBlock> blocks = std::exchange(record_.blocks, {});
  std::vector<RamFileSource::RegionFile> files;
  memory_.clear();
  // A VM that cannot be fenced may have run meanwhile, unnoticed by a daemon.
  for (size_t i = 0; record_.can_be_fenced && i < matched->blocks.size(); ++i) {
    const VmBlock& block = blocks[matched->blocks[i]];
    memory_.push_back({matched->layout.regions[i].name, block.path, block.file_id, block.file_offset,
                       block.size_bytes});
  }
  for (const size_t block : matched->blocks) {
    ram_addresses_.push_back(blocks[block].address);
    files.push_back({std::move(blocks[block].ram_file), blocks[block].file_offset});
  }
  return ServeFiles(matched->layout, std::move(files));
}

std::shared_ptr<RamFileSource> SourceSession::ServeFiles(
    const MemoryLayout& layout, std::vector<RamFileSource::RegionFile> files) {
  auto source = std::make_shared<RamFileSource>(layout, std::move(files));
  ram_ = source;
  std::shared_ptr<PageSource> served = source;
  if (parts_.faults.corrupt_after_pages().has_value()) {
    served = std::make_shared<CorruptOneByte>(served, *parts_.faults.corrupt_after_pages());
  }
  parts_.page_server.Add(session_, served);
  status_.Update([&](Progress& progress) { progress.ram_bytes = layout.size_bytes(); });
  return source;
}

void SourceSession::FreezeMemory() {
  parts_.page_server.Freeze(session_);
  const auto source = ram_.lock();
  if (source == nullptr) return;
  if (allocated_bytes_ == 0) allocated_bytes_ = source->frozen_bytes();
  if (source->frozen_bytes() >= allocated_bytes_) return;
  // A session that this daemon has resumed. The kernel may have reclaimed pages that were never written, so nothing is
  // withheld for it; if somebody has punched the files, what was in them is gone.
  spdlog::error("session {}, vm {}, its RAM files have {} KiB less than when it was stopped: either pages "
                "without content were reclaimed, or somebody has freed memory of it, which then reads as zero",
                session_text_, options_.vm, (allocated_bytes_ - source->frozen_bytes()) >> 10);
}

absl::StatusOr<Offer> SourceSession::MakeOffer(const VmmDescription& vmm) {
  auto source = ServeMemory(vmm);
  if (!source.ok()) return source.status();
  Offer offer = DescribedOffer(options_, vmm, print_);
  offer.session = session_text_;
  auto addresses = AddressesFor(parts_.addresses, options_.destination);
  if (!addresses.ok()) return addresses.status();
  offer.data_addresses = std::move(addresses->data);
  offer.control_address = std::move(addresses->control);
  const MemoryLayout& layout = (*source)->layout();
  for (uint32_t i = 0; i < layout.regions.size(); ++i) {
    auto extents = (*source)->DataExtents({i});
    if (!extents.ok()) return StatusOf(extents.error());
    offer.ram.push_back({layout.regions[i], std::move(*extents)});
  }
  return offer;
}

absl::StatusOr<std::shared_ptr<SourceSession>> SourceSession::TakeUpFiles(
    const DaemonParts& parts, const OwnershipRecord& recorded) {
  MemoryLayout layout;
  std::vector<RamFileSource::RegionFile> files;
  for (const RecordedBlock& block : recorded.memory) {
    auto file = OpenRecordedFile(block, parts.registry.FileBlocks());
    if (!file.ok()) return Prefixed(absl::StrCat("VM ", recorded.vm), file.status());
    layout.regions.push_back({block.name, block.size_bytes});
    files.push_back({*std::move(file), block.file_offset});
  }
  if (files.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "VM ", recorded.vm, ": its record does not say where its memory was, and its VMM has ended: "
        "what has not arrived at ", recorded.peer, " is lost"));
  }
  VmRecord ended;
  ended.name = recorded.vm;
  ended.process = Pidfd::OfEnded(recorded.vmm.pid);
  const PrepareOptions options{recorded.vm, recorded.peer, "", recorded.keep_source};
  std::shared_ptr<SourceSession> session(new SourceSession(parts, options, std::move(ended),
                                                           recorded.vmm, recorded.session,
                                                           SessionState::kHandedOver));
  session->stopped_ = true;
  session->Adopt(recorded);
  session->memory_ = recorded.memory;
  {
    absl::MutexLock lock(&session->mutex_);
    session->notice_ = absl::StrCat("the source's VMM (process ", recorded.vmm.pid,
                                    ") has ended; its memory is served from its RAM files");
  }
  session->ServeFiles(layout, std::move(files));
  parts.page_server.Freeze(session->session_);
  const absl::Status attended = session->StartAttending();
  if (!attended.ok()) return attended;
  return session;
}

}  // namespace postcopy
