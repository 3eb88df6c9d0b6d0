// Little-endian encoding of wire fields, without struct casts.
//
// ByteReader never reads past its span: a short span makes ok() false and every later value zero,
// so that a decoder checks once at its end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace postcopy::wire {

template <typename T>
  requires std::is_unsigned_v<T>
void StoreLittleEndian(std::byte* to, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) to[i] = static_cast<std::byte>(value >> (8 * i));
}

template <typename T>
  requires std::is_unsigned_v<T>
T LoadLittleEndian(const std::byte* from) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) {
    value = static_cast<T>(value | static_cast<T>(static_cast<T>(from[i]) << (8 * i)));
  }
  return value;
}

// Appends fields to a byte vector that the caller owns.
class ByteWriter {
 public:
  explicit ByteWriter(std::vector<std::byte>& out) : out_(out) {}

  void U8(uint8_t v) { out_.push_back(static_cast<std::byte>(v)); }
  void U16(uint16_t v) { Append(v); }
  void U32(uint32_t v) { Append(v); }
  void U64(uint64_t v) { Append(v); }
  void Bytes(std::span<const std::byte> bytes) { out_.insert(out_.end(), bytes.begin(), bytes.end()); }
  // u16 length, then the bytes. REQUIRES: text.size() <= 65535.
  void Text(std::string_view text) {
    U16(static_cast<uint16_t>(text.size()));
    Bytes(std::as_bytes(std::span(text)));
  }

 private:
  template <typename T>
  void Append(T v) {
    std::byte raw[sizeof(T)];
    StoreLittleEndian(raw, v);
    Bytes(raw);
  }

  std::vector<std::byte>& out_;
};

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  uint8_t U8() { return Take<uint8_t>(); }
  uint16_t U16() { return Take<uint16_t>(); }
  uint32_t U32() { return Take<uint32_t>(); }
  uint64_t U64() { return Take<uint64_t>(); }
  // A view into the caller's bytes; empty when they are too short.
  std::span<const std::byte> Bytes(size_t count) {
    if (count > bytes_.size()) {
      ok_ = false;
      bytes_ = {};
      return {};
    }
    auto taken = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return taken;
  }
  // u16 length, then the bytes; fails if longer than `limit_bytes`.
  std::string Text(size_t limit_bytes) {
    const uint16_t length = U16();
    if (length > limit_bytes) ok_ = false;
    const auto raw = Bytes(ok_ ? length : 0);
    return std::string(reinterpret_cast<const char*>(raw.data()), raw.size());
  }
  // False once anything asked for was not there.
  bool ok() const { return ok_; }
  // True when everything asked for was there and nothing is left.
  bool finished() const { return ok_ && bytes_.empty(); }

 private:
  template <typename T>
  T Take() {
    const auto raw = Bytes(sizeof(T));
    return raw.empty() ? T{0} : LoadLittleEndian<T>(raw.data());
  }

  std::span<const std::byte> bytes_;
  bool ok_ = true;
};

}  // namespace postcopy::wire
