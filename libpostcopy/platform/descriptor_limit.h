// How many descriptors this process may have open (RLIMIT_NOFILE).
#pragma once

#include <cstdint>

#include "core/result.h"

namespace postcopy {

// Raises the soft limit to the hard one and returns it: select(), for whose sake the soft limit is
// low, is not used here.
Result<uint64_t> RaiseDescriptorLimit();

}  // namespace postcopy
