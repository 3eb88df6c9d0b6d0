#include "relocation/session_table.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"

namespace postcopy {
namespace {

constexpr std::chrono::milliseconds kSettleTimeout{15'000};

}  // namespace

bool SessionTable::Place::Busy() const {
  if (reserved) return true;
  if (source != nullptr) return !IsFinal(source->state());
  return destination != nullptr && !IsFinal(destination->state());
}

absl::StatusOr<SessionTable::Reservation> SessionTable::Reserve(const std::string& vm) {
  Place ended;  // destroyed without the lock
  absl::MutexLock lock(&mutex_);
  const auto settled = [this, &vm]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !places_[vm].settling;
  };
  if (!mutex_.AwaitWithTimeout(absl::Condition(&settled), absl::FromChrono(kSettleTimeout))) {
    return absl::FailedPreconditionError(
        absl::StrCat("VM ", vm,
                     ": what an earlier uffd-server left of its last relocation is still being put "
                     "in order; `postcopyctl recover ",
                     vm, "` tells more"));
  }
  Place& place = places_[vm];
  if (place.Busy()) {
    return absl::FailedPreconditionError(
        absl::StrCat("VM ", vm, " takes part in another relocation already"));
  }
  std::swap(ended, place);
  Reservation reservation(*this, vm);
  place.reserved = true;
  return reservation;
}

SessionTable::Reservation::~Reservation() {
  if (table_ != nullptr) table_->Fill(vm_, {});
}

void SessionTable::Reservation::Fill(std::shared_ptr<SourceSession> source) {
  std::exchange(table_, nullptr)->Fill(vm_, {.source = std::move(source)});
}

void SessionTable::Reservation::Fill(std::shared_ptr<DestinationSession> destination) {
  std::exchange(table_, nullptr)->Fill(vm_, {.destination = std::move(destination)});
}

void SessionTable::Fill(const std::string& vm, Place place) {
  absl::MutexLock lock(&mutex_);
  if (place.Empty()) {
    places_.erase(vm);
  } else {
    places_[vm] = std::move(place);  // it is there already: nothing is allocated
  }
}

SessionTable::Place SessionTable::Find(const std::string& vm) {
  absl::MutexLock lock(&mutex_);
  const auto found = places_.find(vm);
  return found == places_.end() ? Place{} : found->second;
}

std::shared_ptr<SourceSession> SessionTable::FindSource(const std::string& session) {
  absl::MutexLock lock(&mutex_);
  for (const auto& [vm, place] : places_) {
    if (place.source != nullptr && place.source->session() == session) return place.source;
  }
  return nullptr;
}

std::shared_ptr<DestinationSession> SessionTable::FindDestination(const std::string& session) {
  absl::MutexLock lock(&mutex_);
  for (const auto& [vm, place] : places_) {
    if (place.destination != nullptr && place.destination->session() == session) {
      return place.destination;
    }
  }
  return nullptr;
}

std::vector<std::shared_ptr<SourceSession>> SessionTable::Sources() {
  std::vector<std::shared_ptr<SourceSession>> sources;
  absl::MutexLock lock(&mutex_);
  for (const auto& [vm, place] : places_) {
    if (place.source != nullptr) sources.push_back(place.source);
  }
  return sources;
}

bool SessionTable::MayHandOver(const std::string& session, const std::string& vm) {
  absl::MutexLock lock(&mutex_);
  const auto found = places_.find(vm);
  if (found == places_.end()) return false;
  const Place& place = found->second;
  return place.reserved || (place.source != nullptr && place.source->session() == session &&
                            !IsFinal(place.source->state()));
}

bool SessionTable::NoteRegistered(const std::string& vm) {
  absl::MutexLock lock(&mutex_);
  const auto [place, is_new] = places_.try_emplace(vm);
  if (is_new) place->second.settling = true;
  return is_new;
}

bool SessionTable::BeginSettling(const std::string& vm) {
  absl::MutexLock lock(&mutex_);
  Place& place = places_[vm];
  if (place.Busy() || !place.Empty()) return false;
  place.settling = true;
  return true;
}

void SessionTable::EndSettling(const std::string& vm, LostSessions::Settled settled) {
  absl::MutexLock lock(&mutex_);
  Place& place = places_[vm];
  place.settling = false;
  if (settled.source != nullptr || settled.destination != nullptr) {
    place.source = std::move(settled.source);
    place.destination = std::move(settled.destination);
  } else if (settled.done && !place.Busy() && place.Empty()) {
    places_.erase(vm);
  }
}

}  // namespace postcopy
