#include "account_book.h"

namespace postcopy_lab {

std::optional<uint32_t> AccountBook::Take(Random& random) {
  const uint64_t first = random.Next();
  for (uint64_t i = 0; i < accounts_.size(); ++i) {
    const auto number = static_cast<uint32_t>((first + i) % accounts_.size());
    if (accounts_[number].taken) continue;
    accounts_[number].taken = true;
    return number;
  }
  return std::nullopt;
}

AccountBook::Visit AccountBook::Next(uint32_t account, lab_web_mix mix, uint32_t type) {
  Account& taken = accounts_[account];
  const Visit visit{.number = taken.visits,
                    .key = lab_web_account_next(
                        taken.visits == 0 ? lab_web_account_start(seed_, account) : taken.state,
                        mix, type, taken.visits)};
  taken.state = visit.key;
  ++taken.visits;
  return visit;
}

}  // namespace postcopy_lab
