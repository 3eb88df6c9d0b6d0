#include "server/page_lane.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "platform/mutex.h"
#include "platform/tcp_socket.h"
#include "server/map_answer.h"
#include "wire/page_frame_reader.h"
#include "wire/page_protocol.h"

namespace postcopy {
namespace {

using wire::Encoding;
using wire::PageError;
using wire::PageFrame;
using wire::PageFrameReader;

constexpr std::chrono::seconds kGreetingTimeout{5};

bool IsZeroPage(const std::byte* page) {
  uint64_t first;
  std::memcpy(&first, page, sizeof first);
  return first == 0 && std::memcmp(page, page + sizeof first, kPageBytes - sizeof first) == 0;
}

class LaneServer {
 public:
  LaneServer(int socket, const JoinSession& join)
      : socket_(socket),
        join_(join),
        reader_(PageFrameReader::kMinCapacityBytes) {}

  std::string Run() {
    SetReceiveTimeout(socket_, kGreetingTimeout);
    while (reason_.empty() && !goodbye_) {
      const auto received = Receive(socket_, reader_.WritableSpace());
      if (received.outcome != SocketOutcome::kDone) {
        if (received.outcome == SocketOutcome::kTimedOut) return "no greeting in time";
        return received.error == 0 ? "closed by the peer" : std::strerror(received.error);
      }
      reader_.Commit(received.bytes);
      HandleComplete();
    }
    return reason_;
  }

 private:
  void HandleComplete() {
    PageFrameReader::Item item;
    while (reason_.empty() && !goodbye_) {
      switch (reader_.Next(item)) {
        case PageFrameReader::Outcome::kNeedMore: return;
        case PageFrameReader::Outcome::kFrame: Handle(item); break;
        case PageFrameReader::Outcome::kPiece:
        case PageFrameReader::Outcome::kMalformed:
          Refuse(PageError::kMalformed, "malformed frame");
          break;
      }
    }
  }

  void Handle(const PageFrameReader::Item& item) {
    const auto type = static_cast<PageFrame>(item.header.type);
    if (session_ == nullptr) {
      if (type == PageFrame::kHello) return Greet(item.bytes);
      return Refuse(PageError::kMalformed, "greeting expected");
    }
    if (type == PageFrame::kGoodbye) {
      goodbye_ = true;
      return;
    }
    if (!session_->frozen.load(std::memory_order_acquire)) {
      return Refuse(PageError::kNotNow, "the VM has not stopped yet");
    }
    const bool urgent = lane_ == wire::Lane::kUrgent;
    if (type == PageFrame::kRequest && urgent) return AnswerRequest(item.bytes);
    if (type == PageFrame::kMapRequest && urgent) return BeginMap();
    if (type == PageFrame::kGrant && !urgent) return StreamGrant(item.bytes);
    Refuse(PageError::kMalformed, absl::StrCat("unexpected frame of type ", item.header.type));
  }

  void Greet(std::span<const std::byte> body) {
    const auto hello = wire::DecodeHello(body);
    if (!hello.ok()) return Refuse(PageError::kMalformed, "malformed greeting");
    if (hello->version < wire::kPageProtocolVersion) {
      return Refuse(PageError::kVersion, "protocol version 1 expected");
    }
    auto session = join_(*hello);
    if (!session.ok()) {
      return Refuse(PageError::kNoSuchSession, std::string(session.status().message()));
    }
    session_ = *std::move(session);
    lane_ = hello->lane;
    content_.resize(wire::kMaxRunPages * kPageBytes);  // not before: whoever connects would cost it
    SetReceiveTimeout(socket_, std::chrono::milliseconds(0));
    EnableKeepalive(socket_);
    Send(wire::EncodeWelcome({wire::kPageProtocolVersion, session_->source->layout()}));
  }

  void AnswerRequest(std::span<const std::byte> body) {
    const auto request = wire::DecodePageFields(body);
    if (!request.ok()) return Refuse(PageError::kMalformed, "malformed request");
    if (!Read(request->page.region, {request->page.page, 1})) return;
    if (kinds_[0] == Kind::kUnreadable) return Send(wire::EncodeUnreadable(*request, cause_));
    const bool zero = kinds_[0] == Kind::kZero;
    const auto head = wire::EncodePage(*request, zero ? Encoding::kZero : Encoding::kRaw);
    Send(head, {content_.data(), zero ? 0 : kPageBytes});
  }

  void StreamGrant(std::span<const std::byte> body) {
    const auto grant = wire::DecodeRangeFields(body);
    if (!grant.ok()) return Refuse(PageError::kMalformed, "malformed grant");
    PageRange left = grant->range;
    while (!left.empty() && reason_.empty()) {
      const PageRange part{left.first, std::min<uint64_t>(left.count_pages, wire::kMaxRunPages)};
      if (!Read(grant->region, part)) return;
      SendPart(grant->region, part);
      left = {part.end(), left.count_pages - part.count_pages};
    }
  }

  // Of what was read: the pages of one kind from `from` on.
  uint64_t EndOfKind(uint64_t from, uint64_t count) const {
    uint64_t end = from + 1;
    while (end < count && kinds_[end] == kinds_[from]) ++end;
    return end;
  }

  // Sends what was read, in order: runs, and what cannot be read by name.
  void SendPart(RegionId region, PageRange part) {
    uint64_t begun = 0;  // runs that wait to be sent together
    for (uint64_t at = 0; at < part.count_pages && reason_.empty();) {
      const uint64_t end = EndOfKind(at, part.count_pages);
      if (kinds_[at] == Kind::kUnreadable) {
        SendRuns(region, part.first, begun, at);
        Send(wire::EncodeUnreadable(wire::RangeFields{region, {part.first + at, end - at}}, cause_));
        begun = end;
      }
      at = end;
    }
    SendRuns(region, part.first, begun, part.count_pages);
  }

  // Sends the pages [from, to) of what was read, all readable, as runs of zeros and of content.
  void SendRuns(RegionId region, PageIndex first, uint64_t from, uint64_t to) {
    if (from == to || !reason_.empty()) return;
    std::array<wire::PageFrameHead, wire::kMaxRunPages> heads;
    std::array<std::span<const std::byte>, 2 * wire::kMaxRunPages> parts;
    static_assert(std::tuple_size_v<decltype(parts)> <= kMaxSendParts);
    size_t runs = 0;
    size_t content_bytes = 0;
    for (uint64_t at = from; at < to; ++runs) {
      const bool zero = kinds_[at] == Kind::kZero;
      const uint64_t end = EndOfKind(at, to);
      heads[runs] = wire::EncodeRun({region, {first + at, end - at}},
                                    zero ? Encoding::kZero : Encoding::kRaw);
      const size_t bytes = zero ? 0 : (end - at) * kPageBytes;
      parts[2 * runs] = heads[runs];
      parts[2 * runs + 1] = {content_.data() + at * kPageBytes, bytes};
      content_bytes += bytes;
      at = end;
    }
    SocketResult result;
    {
      MutexLock lock(send_mutex_);
      result = SendParts(socket_, std::span(parts).first(2 * runs));
    }
    Sent(result, content_bytes);
  }

  void BeginMap() {
    map_answer_.reset();
    map_answer_.emplace(
        session_, [this](std::span<const std::byte> frame) { return SendFrame(frame); },
        [this](const std::string& cause) {
          SendFrame(wire::EncodeError(PageError::kReadFailed, cause));
          Shutdown(socket_);  // ends Run()
        });
    const auto started = map_answer_->Start();
    if (!started.ok()) Refuse(PageError::kNotNow, started.error().message);
  }

  // Reads pages, at most kMaxRunPages, into content_, and sets their kinds. False: the lane ends.
  bool Read(RegionId region, PageRange range) {
    if (!session_->source->layout().Contains(region, range)) {
      Refuse(PageError::kOutOfRange, "pages outside guest RAM");
      return false;
    }
    const std::span<std::byte> to(content_.data(), range.size_bytes());
    const bool all = session_->source->Read(region, range, to) == 0;
    bool any_zero = false;
    for (uint64_t i = 0; i < range.count_pages; ++i) {
      const PageIndex page = range.first + i;
      const auto at = to.subspan(i * kPageBytes, kPageBytes);
      const int error = all ? 0 : session_->source->Read(region, {page, 1}, at);
      if (error != 0) {
        SetUnreadable(region, page, i,
                      error == ENODATA ? "its RAM file ends before it" : std::strerror(error));
      } else {
        kinds_[i] = IsZeroPage(at.data()) ? Kind::kZero : Kind::kContent;
        any_zero |= kinds_[i] == Kind::kZero;
      }
    }
    if (any_zero && session_->source->HasLost(region)) RefuseWhatWasLost(region, range);
    return true;
  }

  // What had data when the VM stopped and is a hole now must not be served as zeros.
  void RefuseWhatWasLost(RegionId region, PageRange range) {
    for (uint64_t i = 0; i < range.count_pages; ++i) {
      const PageAddress page{region, range.first + i};
      if (kinds_[i] != Kind::kZero || session_->source->HasData(page)) continue;
      if (!session_->HadData(page)) continue;
      SetUnreadable(region, page.page, i, "its memory was freed after the VM had stopped");
    }
  }

  void SetUnreadable(RegionId region, PageIndex page, uint64_t place, const std::string& cause) {
    kinds_[place] = Kind::kUnreadable;
    cause_ = cause;
    session_->NoteUnreadable(region, page, cause);
  }

  void Send(std::span<const std::byte> head, std::span<const std::byte> content = {}) {
    SocketResult result;
    {
      MutexLock lock(send_mutex_);
      result = SendAll(socket_, head, content);
    }
    Sent(result, content.size());
  }

  // Of any thread. False: the lane has ended.
  bool SendFrame(std::span<const std::byte> frame) {
    MutexLock lock(send_mutex_);
    return SendAll(socket_, frame).outcome == SocketOutcome::kDone;
  }

  void Sent(const SocketResult& result, size_t content_bytes) {
    if (result.outcome != SocketOutcome::kDone) {
      reason_ = absl::StrCat("send: ", std::strerror(result.error));
      return;
    }
    session_->sent_bytes.fetch_add(content_bytes, std::memory_order_relaxed);
  }

  void Refuse(PageError code, const std::string& text) {
    reason_ = text;
    SendFrame(wire::EncodeError(code, text));
  }

  // What a page that was read is.
  enum class Kind : uint8_t { kContent, kZero, kUnreadable };

  const int socket_;
  const JoinSession& join_;
  PageFrameReader reader_;
  std::vector<std::byte> content_;  // of what was read last
  std::array<Kind, wire::kMaxRunPages> kinds_{};
  std::string cause_;  // why the last one that cannot be read cannot be
  std::shared_ptr<ServedSession> session_;
  wire::Lane lane_ = wire::Lane::kUrgent;
  bool goodbye_ = false;
  std::string reason_;  // why the lane ends; empty: it goes on
  Mutex send_mutex_;  // keeps frames whole: the map comes from a thread of its own
  std::optional<MapAnswer> map_answer_;  // last: its thread sends until it is destroyed
};

}  // namespace

std::string ServeLane(int socket, const JoinSession& join) { return LaneServer(socket, join).Run(); }

}  // namespace postcopy
