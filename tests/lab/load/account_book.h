// The accounts of the guest's web program as the client knows them: which are free, and the state
// of each.
//
// Pure. What a state is says web_content.h.
#ifndef POSTCOPY_LAB_LOAD_ACCOUNT_BOOK_H_
#define POSTCOPY_LAB_LOAD_ACCOUNT_BOOK_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "random.h"
#include "web_content.h"

namespace postcopy_lab {

class AccountBook {
 public:
  // `seed`: of the guest's content.
  explicit AccountBook(uint64_t seed) : seed_(seed), accounts_(LAB_WEB_ACCOUNTS) {}

  // An account for a visitor of its own, each free one as likely as another; nothing if none is
  // free.
  std::optional<uint32_t> Take(Random& random);
  // The visitor has gone, and every page that it asked for was right.
  void Return(uint32_t account) { accounts_[account].taken = false; }
  // An account that is not returned is never taken again: nobody knows its state after a page that
  // went wrong.

  struct Visit {
    uint64_t number = 0;  // of the account in this run, from 0
    uint64_t key = 0;     // of the page's content
  };
  // The account is about to be asked for a page. REQUIRES: taken.
  Visit Next(uint32_t account, lab_web_mix mix, uint32_t type);

 private:
  struct Account {
    bool taken = false;
    uint64_t visits = 0;
    uint64_t state = 0;  // after them
  };

  const uint64_t seed_;
  std::vector<Account> accounts_;
};

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_ACCOUNT_BOOK_H_
