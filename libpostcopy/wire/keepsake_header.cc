#include "wire/keepsake_header.h"

#include <algorithm>

#include "core/units.h"
#include "wire/bytes.h"

namespace postcopy::wire {
namespace {

constexpr uint32_t kKeepsakeMagic = 0x4b504350;  // "PCPK"
constexpr uint32_t kKeepsakeVersion = 1;

}  // namespace

MemoryLayout LayoutOf(const KeepsakeHeader& header) {
  MemoryLayout layout;
  for (const KeepsakeRegion& region : header.regions) layout.regions.push_back(region.region);
  return layout;
}

Result<void> Validate(const KeepsakeHeader& header) {
  const auto refuse = [](std::string cause) {
    return Error{ErrorCode::kInvalidArgument, "keepsake: " + std::move(cause)};
  };
  if (header.session == SessionId{}) return refuse("session id is zero");
  if (auto layout = Validate(LayoutOf(header)); !layout.ok()) return refuse(layout.error().message);
  for (const KeepsakeRegion& region : header.regions) {
    if (region.address % kPageBytes != 0 ||
        region.address > UINT64_MAX - region.region.size_bytes) {
      return refuse("region " + region.region.name + " lies at no page's address");
    }
  }
  if (header.data_addresses.empty() || header.data_addresses.size() > kMaxKeepsakeAddresses) {
    return refuse(std::to_string(header.data_addresses.size()) + " addresses");
  }
  for (const std::string& address : header.data_addresses) {
    if (address.empty() || address.size() > kMaxKeepsakeAddressBytes) {
      return refuse("an address of " + std::to_string(address.size()) + " bytes");
    }
  }
  if (header.control_address.size() > kMaxKeepsakeAddressBytes) {
    return refuse("a control address of " + std::to_string(header.control_address.size()) + " bytes");
  }
  return {};
}

std::vector<std::byte> EncodeKeepsakeHeader(const KeepsakeHeader& header) {
  std::vector<std::byte> bytes;
  ByteWriter out(bytes);
  out.U32(kKeepsakeMagic);
  out.U32(kKeepsakeVersion);
  out.Bytes(header.session.bytes);
  out.U16(static_cast<uint16_t>(header.regions.size()));
  out.U16(static_cast<uint16_t>(header.data_addresses.size()));
  for (const KeepsakeRegion& region : header.regions) {
    out.U64(region.address);
    out.U64(region.region.size_bytes);
    out.Text(region.region.name);
  }
  for (const std::string& address : header.data_addresses) out.Text(address);
  out.Text(header.control_address);
  return bytes;
}

Result<KeepsakeHeader> DecodeKeepsakeHeader(std::span<const std::byte> bytes) {
  ByteReader in(bytes.first(std::min(bytes.size(), kKeepsakeHeaderBytes)));
  const uint32_t magic = in.U32();
  const uint32_t version = in.U32();
  if (!in.ok() || magic != kKeepsakeMagic) {
    return Error{ErrorCode::kProtocol, "keepsake: it does not begin as one"};
  }
  if (version != kKeepsakeVersion) {
    return Error{ErrorCode::kUnsupported, "keepsake: it has version " + std::to_string(version) +
                                              ", not " + std::to_string(kKeepsakeVersion)};
  }
  KeepsakeHeader header;
  const auto session = in.Bytes(header.session.bytes.size());
  std::copy(session.begin(), session.end(), header.session.bytes.begin());
  const uint16_t count_regions = in.U16();
  const uint16_t count_addresses = in.U16();
  for (uint16_t i = 0; i < std::min<size_t>(count_regions, kMaxRegions) && in.ok(); ++i) {
    KeepsakeRegion& region = header.regions.emplace_back();
    region.address = in.U64();
    region.region.size_bytes = in.U64();
    region.region.name = in.Text(kMaxRegionNameBytes);
  }
  for (uint16_t i = 0; i < std::min<size_t>(count_addresses, kMaxKeepsakeAddresses) && in.ok();
       ++i) {
    header.data_addresses.push_back(in.Text(kMaxKeepsakeAddressBytes));
  }
  header.control_address = in.Text(kMaxKeepsakeAddressBytes);
  if (!in.ok() || header.regions.size() != count_regions ||
      header.data_addresses.size() != count_addresses) {
    return Error{ErrorCode::kProtocol, "keepsake: a field is out of bounds"};
  }
  if (auto valid = Validate(header); !valid.ok()) {
    return Error{ErrorCode::kProtocol, valid.error().message};
  }
  return header;
}

}  // namespace postcopy::wire
