// What the C ABI returns for an Error: one errno value a code.
#pragma once

#include "core/result.h"

namespace postcopy {

// Negative, never 0.
int ErrnoOf(ErrorCode code);

}  // namespace postcopy
