// Limits of a device state on its way between daemons.
#pragma once

#include <cstddef>
#include <cstdint>

namespace postcopy {

inline constexpr uint64_t kMaxDeviceStateBytes = uint64_t{1} << 30;
// Well below gRPC's message limit; larger pieces move no faster.
inline constexpr size_t kMaxStatePieceBytes = 1 << 20;
// What a QEMU with a few devices has: 0.2 to 0.4 MB.
inline constexpr size_t kUsualDeviceStateBytes = 384 << 10;

}  // namespace postcopy
