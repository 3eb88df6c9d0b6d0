// Faults that a daemon makes on purpose, at named places, for tests of what becomes of the VM.
//
//   corrupt-one-byte[=N]  one bit of one byte is flipped on its way, after N random-looking pages
//   delay-bulk=SECONDS    at the destination: the bulk begins so long after RESUME, so that what the
//                         guest touches meanwhile is fetched by demand
//   hold-at=STEP          the first time that a relocation comes to that step the daemon makes the
//                         file <runtime-dir>/held-STEP and goes on when it is removed (or after 60 s)
//
// Steps at the source: opened, held, taken, loaded, recorded, handed-over; at the destination:
// incoming, state-loaded, owner-recorded, resumed.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace postcopy {

class FaultPlan {
 public:
  FaultPlan() = default;
  // kInvalidArgument names the word that is no fault.
  static absl::StatusOr<FaultPlan> Parse(const std::vector<std::string>& faults,
                                         const std::string& runtime_dir);

  // Random-looking pages to pass over before one is corrupted.
  std::optional<uint64_t> corrupt_after_pages() const { return corrupt_after_pages_; }
  // Nothing: it begins at once.
  std::optional<std::chrono::seconds> bulk_delay() const { return bulk_delay_; }
  // Blocks if the plan says so.
  void Reach(const std::string& step) const;

 private:
  std::optional<uint64_t> corrupt_after_pages_;
  std::optional<std::chrono::seconds> bulk_delay_;
  // Steps that nobody has come to yet; copies of a plan share them.
  struct Holds {
    absl::Mutex mutex;
    std::set<std::string> steps ABSL_GUARDED_BY(mutex);
  };
  std::shared_ptr<Holds> holds_ = std::make_shared<Holds>();
  std::string runtime_dir_;
};

}  // namespace postcopy
