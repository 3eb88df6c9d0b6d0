// How a DestinationSession comes to be: prepared for an offer, or taken up after a restart.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "platform/ram_file.h"
#include "relocation/destination_session.h"
#include "relocation/fit.h"
#include "relocation/memory_match.h"
#include "relocation/memory_owners.h"
#include "server/status_of.h"
#include "transport/tcp_transport.h"
#include "wire/keepsake_header.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;

Progress InitialProgress(const Offer& offer) {
  Progress progress;
  progress.vm = offer.vm;
  progress.session = offer.session;
  progress.peer = offer.control_address;
  progress.role = SessionRole::kDestination;
  for (const OfferedRegion& region : offer.ram) progress.ram_bytes += region.region.size_bytes;
  return progress;
}

// Of the marks with which a session is taken up.
bool IsOwners(OwnershipMark mark) {
  return mark == OwnershipMark::kOwner || mark == OwnershipMark::kIncomplete;
}

Progress InitialProgress(const OwnershipRecord& recorded, const MemoryLayout& layout) {
  Progress progress;
  progress.vm = recorded.vm;
  progress.session = recorded.session.ToString();
  progress.peer = recorded.peer;
  progress.role = SessionRole::kDestination;
  progress.state = IsOwners(recorded.mark) ? SessionState::kHandedOver : SessionState::kStopped;
  progress.ram_bytes = layout.size_bytes();
  return progress;
}

absl::Status CheckWanted(const HasGone& has_gone) {
  return has_gone() ? absl::CancelledError("the source no longer waits for the answer")
                    : absl::OkStatus();
}

constexpr milliseconds kArmTimeout{60'000};
// Steps of allocation, so that a large guest does not hold the file system for long.
constexpr uint64_t kAllocateStepBytes = 64 << 20;

}  // namespace

absl::StatusOr<std::shared_ptr<DestinationSession>> DestinationSession::Prepare(
    const DaemonParts& parts, const Offer& offer, const HasGone& has_gone) {
  const auto id = SessionId::Parse(offer.session);
  if (!id.has_value()) return absl::InvalidArgumentError("offer: malformed session id");
  // Looked at first, so that such an offer touches nothing; Create() below decides.
  const auto known = parts.store.Read(*id, SessionRole::kDestination);
  if (known.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("session ", offer.session, " is known on this host already"));
  }
  if (!absl::IsNotFound(known.status())) return NothingDone(known.status());
  auto record = parts.registry.Find(offer.vm);
  if (!record.ok()) {
    return absl::FailedPreconditionError(
        "none of that name waits there: no VM of that name has registered with the destination's "
        "daemon; start its QEMU there, with the hook and with -S -incoming defer");
  }
  if (!record->problem.empty()) {
    return absl::FailedPreconditionError(absl::StrCat("it runs unhooked: ", record->problem));
  }
  std::optional<SessionId> lost;
  if (record->arming.has_value()) lost = record->arming->session_id;
  record->arming.reset();
  std::shared_ptr<DestinationSession> session(
      new DestinationSession(parts, InitialProgress(offer), std::move(*record), *id));

  auto vmm = parts.connect_vmm(session->record_);
  if (!vmm.ok()) return vmm.status();
  session->UseVmm(*std::move(vmm));
  const auto description = session->vmm_->Describe();
  if (!description.ok()) return description.status();
  absl::Status status = CheckDestination(*description, session->record_.pid());
  if (!status.ok()) return status;
  const auto matched = MatchMemory(session->record_, *description, SessionRole::kDestination);
  if (!matched.ok()) return matched.status();
  auto print = session->vmm_->Print();
  if (!print.ok()) return print.status();
  session->print_ = *std::move(print);
  status = CheckFit(offer, *description, session->print_, matched->layout);
  if (!status.ok()) return status;

  // The source's order of regions counts.
  std::vector<size_t> blocks;
  for (const OfferedRegion& offered : offer.ram) {
    const auto& regions = matched->layout.regions;
    const auto twin = std::find(regions.begin(), regions.end(), offered.region);
    blocks.push_back(matched->blocks[static_cast<size_t>(twin - regions.begin())]);
  }
  status = CheckMemoryIsNotMapped(parts.registry, session->record_, blocks);
  if (!status.ok()) return status;

  if (lost.has_value()) {
    // Armed for a session that this daemon no longer has. The VMM still waits for a machine, so
    // nothing has come in that session that anyone needs.
    status = parts.registry.Release(offer.vm, *lost);
    if (!status.ok()) return status;
  }

  status = session->MakeKeepsake(offer, blocks);
  session->record_.blocks.clear();  // arming returns them again
  if (!status.ok()) return status;
  // Until this has returned ok, a record of that session is not this call's.
  status = parts.store.Create(session->RecordOf(OwnershipMark::kOffered));
  if (absl::IsAlreadyExists(status)) return absl::FailedPreconditionError(status.message());
  if (!status.ok()) return NothingDone(status);
  // However this ends but well.
  absl::Cleanup undo = [&session, &parts, &id] {
    session->Disarm();
    parts.store.Remove(*id, SessionRole::kDestination);
  };
  status = session->Arm(offer, blocks);
  if (status.ok()) status = session->AllocateData(offer, has_gone);
  if (status.ok()) status = CheckWanted(has_gone);
  if (status.ok()) status = session->OpenLanes(offer);
  if (status.ok()) status = session->vmm_->PrepareDestination();
  if (status.ok()) status = CheckWanted(has_gone);
  if (status.ok()) status = session->StartAttending();
  if (!status.ok()) return status;
  std::move(undo).Cancel();
  return session;
}

absl::Status DestinationSession::StartAttending() {
  auto attendant = DaemonThread::Start("pc-destination", [this] { Attend(); });
  if (!attendant.ok()) return attendant.status();
  attendant_ = *std::move(attendant);
  return absl::OkStatus();
}

absl::Status DestinationSession::MakeKeepsake(const Offer& offer,
                                              const std::vector<size_t>& blocks) {
  wire::KeepsakeHeader header{session_, {}, offer.data_addresses, offer.control_address};
  for (size_t i = 0; i < blocks.size(); ++i) {
    header.regions.push_back({offer.ram[i].region, record_.blocks[blocks[i]].address});
  }
  auto made = Keepsake::Make(std::move(header));
  if (!made.ok()) return StatusOf(made.error());
  keepsake_.emplace(std::move(*made));
  return absl::OkStatus();
}

absl::Status DestinationSession::Arm(const Offer& offer, const std::vector<size_t>& blocks) {
  auto armed = parts_.registry.Arm(offer.vm, session_, kArmTimeout, keepsake_->memfd(), blocks);
  if (!armed.ok()) return armed.status();
  blocks_ = std::move(armed->blocks);
  return UseArmed(std::move(armed->userfault));
}

absl::Status DestinationSession::UseArmed(UniqueFd userfault) {
  auto waiter = Waiter::Create();
  if (!waiter.ok()) return StatusOf(waiter.error());
  device_ = std::make_unique<UserfaultDevice>(std::move(userfault), std::move(*waiter));
  for (const VmBlock& block : blocks_) {
    const auto region = MakeMappedRegion(
        block.address, block.size_bytes,
        block.kind == wire::BlockKind::kSharedFile ? block.ram_file.get() : -1, block.file_offset);
    if (!region.ok()) return StatusOf(region.error());
    regions_.push_back(*region);
  }
  return absl::OkStatus();
}

absl::Status DestinationSession::AllocateData(const Offer& offer, const HasGone& has_gone) {
  for (size_t i = 0; i < regions_.size(); ++i) {
    const MappedRegion& region = regions_[i];
    if (!region.file_backed()) continue;
    for (const PageRange& data : offer.ram[i].data) {
      for (uint64_t done = 0; done < data.size_bytes(); done += kAllocateStepBytes) {
        if (auto wanted = CheckWanted(has_gone); !wanted.ok()) return wanted;
        const auto allocated =
            AllocateRamFile(region.ram_file, region.file_offset + data.first.offset_bytes() + done,
                            std::min(kAllocateStepBytes, data.size_bytes() - done));
        if (!allocated.ok()) return StatusOf(allocated.error());
      }
    }
  }
  return absl::OkStatus();
}

absl::Status DestinationSession::OpenLanes(const Offer& offer) {
  TcpTransportOptions options;
  options.addresses = offer.data_addresses;
  options.session = session_;
  options.bulk_lanes = parts_.bulk_lanes;
  auto transport = TcpTransport::Connect(options);
  if (!transport.ok()) return StatusOf(transport.error());
  for (const OfferedRegion& offered : offer.ram) layout_.regions.push_back(offered.region);
  if ((*transport)->layout().regions != layout_.regions) {
    return absl::FailedPreconditionError(
        "the page server describes another memory than the offer");
  }
  for (const MappedRegion& region : regions_) page_bytes_.push_back(region.page_bytes);
  if (parts_.traces.has_value()) trace_ = std::make_unique<FaultTrace>();
  engine_ = std::make_unique<Engine>(
      std::move(*transport), *device_, regions_,
      EngineOptions{.trace = trace_.get(), .page_bytes = keepsake_->page_bytes()});
  for (uint32_t i = 0; i < regions_.size(); ++i) {
    if (!regions_[i].file_backed()) continue;
    for (const PageRange& data : offer.ram[i].data) engine_->MarkAllocated({i}, data);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<DestinationSession>> DestinationSession::TakeUp(
    const DaemonParts& parts, const OwnershipRecord& recorded, VmRecord record) {
  if (!record.arming.has_value() || record.arming->session_id != recorded.session) {
    return absl::FailedPreconditionError("its VMM is not armed for the session");
  }
  VmArming arming = *std::exchange(record.arming, std::nullopt);
  auto keepsake = Keepsake::Open(std::move(arming.keepsake));
  if (!keepsake.ok()) return absl::FailedPreconditionError(keepsake.error().message);
  if (keepsake->header().session != recorded.session) {
    return absl::FailedPreconditionError("keepsake: it is another session's");
  }
  std::vector<VmBlock> blocks;
  for (const wire::KeepsakeRegion& region : keepsake->header().regions) {
    const auto armed =
        std::find_if(arming.blocks.begin(), arming.blocks.end(), [&](size_t position) {
          const VmBlock& block = record.blocks[position];
          return block.address == region.address && block.size_bytes == region.region.size_bytes;
        });
    if (armed == arming.blocks.end()) {
      return absl::FailedPreconditionError(
          absl::StrCat("keepsake: RAM block ", region.region.name, " is not where it was"));
    }
    blocks.push_back(std::move(record.blocks[*armed]));
    arming.blocks.erase(armed);
  }
  record.blocks.clear();
  std::shared_ptr<DestinationSession> session(new DestinationSession(
      parts, InitialProgress(recorded, keepsake->layout()), std::move(record), recorded.session));
  session->taken_up_ = true;
  session->given_up_ = recorded.mark == OwnershipMark::kIncomplete;
  session->blocks_ = std::move(blocks);
  session->keepsake_.emplace(std::move(*keepsake));
  {
    absl::MutexLock lock(&session->mutex_);
    session->used_up_ = true;
    session->owner_ = IsOwners(recorded.mark);
    session->run_ = recorded.run;
  }
  absl::Status status = session->UseArmed(std::move(arming.userfault));
  if (status.ok()) status = session->TakeUpEngine();
  if (!status.ok()) return status;
  status = session->StartAttending();
  if (!status.ok()) return status;
  return session;
}

absl::Status DestinationSession::TakeUpEngine() {
  TcpTransportOptions options;
  options.addresses = keepsake_->header().data_addresses;
  options.session = session_;
  options.bulk_lanes = parts_.bulk_lanes;
  layout_ = keepsake_->layout();
  auto transport = TcpTransport::ConnectLater(options, layout_);
  if (!transport.ok()) return StatusOf(transport.error());
  engine_ = std::make_unique<Engine>(
      std::move(*transport), *device_, regions_,
      EngineOptions{.page_bytes = keepsake_->page_bytes(), .takes_up = true});
  const auto started = engine_->Start();
  if (!started.ok()) return StatusOf(started.error());
  engine_->StartBulk();
  engine_->GuestRuns();
  return absl::OkStatus();
}

}  // namespace postcopy
