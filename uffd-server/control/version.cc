#include "control/version.h"

namespace postcopy {

std::string_view Version() { return POSTCOPY_VERSION; }

}  // namespace postcopy
