// Messages of the page protocol (docs/wire-protocol.md): encoding and decoding of one frame.
//
// Pure. Not responsible for cutting a byte stream into frames (page_frame_reader.h), nor for who
// may send what when (transport/, server/).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/memory_layout.h"
#include "core/result.h"
#include "core/session_id.h"
#include "core/units.h"
#include "wire/frame.h"

namespace postcopy::wire {

inline constexpr uint16_t kPageProtocolVersion = 1;
inline constexpr uint32_t kPageProtocolMagic = 0x59504350;
inline constexpr uint32_t kMaxRunPages = 64;
inline constexpr uint32_t kMaxMapExtents = 4096;
inline constexpr size_t kMaxErrorTextBytes = 1024;
// Body of every frame but PAGE, RUN, MAP and WELCOME.
inline constexpr uint32_t kMaxSmallBodyBytes = 4096;
// Fixed part of the body of REQUEST, PAGE, GRANT and RUN.
inline constexpr uint32_t kPageFieldsBytes = 16;
inline constexpr size_t kPageFrameBytes = kFrameHeaderBytes + kPageFieldsBytes;

enum class PageFrame : uint8_t {
  kHello = 1,
  kWelcome = 2,
  kRequest = 3,
  kPage = 4,
  kGrant = 5,
  kRun = 6,
  kMapRequest = 7,
  kMap = 8,
  kError = 9,
  kGoodbye = 10,
  kUnreadable = 11,
};
enum class Encoding : uint8_t { kRaw = 0, kZero = 1 };
enum class Lane : uint8_t { kUrgent = 0, kBulk = 1 };
enum class PageError : uint16_t {
  kVersion = 1,
  kNoSuchSession = 2,
  kNotNow = 3,
  kMalformed = 4,
  kOutOfRange = 5,
  kReadFailed = 6,
};
inline constexpr uint16_t kLastMap = 1;

struct Hello {
  uint16_t version = kPageProtocolVersion;
  Lane lane = Lane::kUrgent;
  SessionId session;
};
struct Welcome {
  uint16_t version = kPageProtocolVersion;
  MemoryLayout layout;
};
// REQUEST and PAGE: `id` and one page. GRANT and RUN: `count_pages` pages from `first`.
struct PageFields {
  uint32_t id = 0;
  PageAddress page;
};
struct RangeFields {
  RegionId region;
  PageRange range;
};
struct MapFields {
  RegionId region;
  std::vector<PageRange> extents;
  bool last = false;
};
struct ErrorFields {
  PageError code = PageError::kMalformed;
  std::string text;
};

// UNREADABLE: which of the two it has depends on the lane.
struct UnreadableFields {
  PageFields page;  // urgent
  RangeFields run;  // bulk
  std::string text;
};

using Bytes = std::vector<std::byte>;

Bytes EncodeHello(const Hello& hello);
Bytes EncodeWelcome(const Welcome& welcome);
Bytes EncodeMapRequest();
// REQUIRES: at most kMaxMapExtents extents.
Bytes EncodeMap(const MapFields& map);
// Text beyond kMaxErrorTextBytes is cut.
Bytes EncodeError(PageError code, std::string_view text);
Bytes EncodeGoodbye();
// On the urgent lane, and on a bulk lane. Text as in EncodeError().
Bytes EncodeUnreadable(const PageFields& fields, std::string_view text);
Bytes EncodeUnreadable(const RangeFields& fields, std::string_view text);
// Header and fixed fields of the frames of the page path, without allocation; page content, if any,
// is sent behind them by the caller.
using PageFrameHead = std::array<std::byte, kPageFrameBytes>;
PageFrameHead EncodeRequest(const PageFields& fields);
PageFrameHead EncodePage(const PageFields& fields, Encoding encoding);
PageFrameHead EncodeGrant(const RangeFields& fields);
PageFrameHead EncodeRun(const RangeFields& fields, Encoding encoding);

// Decoders take the body alone; kProtocol if it does not fit the document.
Result<Hello> DecodeHello(std::span<const std::byte> body);
Result<Welcome> DecodeWelcome(std::span<const std::byte> body);
Result<PageFields> DecodePageFields(std::span<const std::byte> fixed);
Result<RangeFields> DecodeRangeFields(std::span<const std::byte> fixed);
Result<MapFields> DecodeMap(const FrameHeader& header, std::span<const std::byte> body);
Result<UnreadableFields> DecodeUnreadable(std::span<const std::byte> body, bool urgent);
Result<ErrorFields> DecodeError(std::span<const std::byte> body);

// The longest body that a frame of this type may have; 0 for GOODBYE, MAP_REQUEST and for types
// that the protocol does not know (`known` tells).
uint32_t MaxBodyBytes(uint8_t type, bool& known);
// The bits of `aux` that such a frame may have.
uint16_t PossibleAux(uint8_t type);

}  // namespace postcopy::wire
