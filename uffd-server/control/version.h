// The version of this build, as List and `postcopyctl --version` tell it.
#pragma once

#include <string_view>

namespace postcopy {

std::string_view Version();

}  // namespace postcopy
