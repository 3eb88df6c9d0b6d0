// Limits of a device state on its way between daemons.
#pragma once

#include <cstddef>
#include <cstdint>

namespace postcopy {

inline constexpr uint64_t kMaxDeviceStateBytes = uint64_t{1} << 30;
// Well below gRPC's message limit; larger pieces move no faster.
inline constexpr size_t kMaxStatePieceBytes = 1 << 20;

}  // namespace postcopy
