#include "perf/replay/policy.h"

namespace postcopy::replay {
namespace {

// A scheduler that hears of no fault has address order only.
class AddressOrder final : public Policy {
 public:
  explicit AddressOrder(PageMap& map) : scheduler_(map) {}
  void OnFault(PageAddress) override {}
  std::optional<Grant> Next(uint64_t max_pages) override { return scheduler_.Next(max_pages); }

 private:
  GrantScheduler scheduler_;
};

class AroundFaults final : public Policy {
 public:
  explicit AroundFaults(PageMap& map) : scheduler_(map) {}
  void OnFault(PageAddress page) override { scheduler_.OnFault(page); }
  std::optional<Grant> Next(uint64_t max_pages) override { return scheduler_.Next(max_pages); }

 private:
  GrantScheduler scheduler_;
};

template <typename T>
PolicyKind Kind(std::string name) {
  return {std::move(name), [](PageMap& map) { return std::make_unique<T>(map); }};
}

}  // namespace

const std::vector<PolicyKind>& AllPolicies() {
  static const std::vector<PolicyKind> policies = {Kind<AddressOrder>("address"),
                                                   Kind<AroundFaults>("around-faults")};
  return policies;
}

}  // namespace postcopy::replay
