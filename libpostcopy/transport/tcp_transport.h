// Lanes over TCP (docs/wire-protocol.md): one urgent connection and some bulk ones, each with a
// thread that receives.
//
// When a connection breaks, or a lane is silent, all lanes are ended and made anew, the urgent one first,
// for as long as it takes; a thread of its own does that. So a link that is down, a peer that stalls and
// one that is restarted are one case. All lanes lead to one address: the first that greets, the one that
// greeted last when lanes are made anew.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/session_id.h"
#include "platform/mutex.h"
#include "platform/quiet_thread.h"
#include "platform/tcp_connector.h"
#include "platform/unique_fd.h"
#include "transport/lane_orders.h"
#include "transport/page_transport.h"
#include "wire/page_frame_reader.h"

namespace postcopy {

struct TcpTransportOptions {
  std::vector<std::string> addresses;  // host:port; all are tried, the first one first
  SessionId session;
  size_t bulk_lanes = 2;
  std::chrono::milliseconds connect_timeout{3000};  // of Connect(), for each lane
};

class TcpTransport final : public PageTransport {
 public:
  // A lane on which nothing has come for so long of what was asked for is silent: longer than a page takes
  // over the slowest link that makes sense, and than TCP needs to make up for a lost packet. A bulk lane
  // beside others that speak gets four times as long.
  static constexpr std::chrono::milliseconds kSilence{1500};

  // Connects and greets on every lane. Blocks at most connect_timeout per lane, twice.
  static Result<std::unique_ptr<PageTransport>> Connect(const TcpTransportOptions& options);
  // The same for a session whose layout is known, without waiting for the source: when it is
  // started the lanes are made as they are made anew, for as long as that takes. Fails if no
  // address can be had from `options`.
  static Result<std::unique_ptr<PageTransport>> ConnectLater(const TcpTransportOptions& options,
                                                             MemoryLayout layout);
  ~TcpTransport() override;

  const MemoryLayout& layout() const override { return layout_; }
  size_t bulk_lanes() const override { return lanes_.size() - 1; }
  Result<void> Start(PageSink& sink) override;
  bool Request(uint32_t id, PageAddress page) override;
  bool RequestMap() override;
  bool Grant(size_t lane, RegionId region, PageRange range) override;
  std::chrono::nanoseconds RoundTrip() override;
  void Stop() override;

 private:
  struct LaneState {
    size_t place = 0;  // 0: urgent; others: bulk lane place - 1
    Mutex send_mutex;  // keeps frames whole; held across one small send
    bool up POSTCOPY_GUARDED_BY(send_mutex) = false;
    // Replaced under both mutexes while the lane has no receiver; read under either, or by the receiver.
    Mutex socket_mutex;
    UniqueFd socket;
    std::unique_ptr<wire::PageFrameReader> reader;  // of the receiver's thread once that runs
    std::optional<QuietThread> receiver;            // of the keeper's thread, once that runs
    LaneOrders orders;
    // Pages asked for that have not come, the map counting for one, and when bytes came last (or when the
    // first of these pages was asked for), in ns of the steady clock.
    std::atomic<int64_t> awaited{0};
    std::atomic<int64_t> heard_ns{0};
    bool urgent() const { return place == 0; }
  };

  static int64_t NowNs() { return std::chrono::steady_clock::now().time_since_epoch().count(); }
  TcpTransport(const TcpTransportOptions& options, TcpConnector connector);
  // Without a lane.
  static Result<std::unique_ptr<TcpTransport>> Make(const TcpTransportOptions& options);
  // Connects and greets: then requests can be sent. The first lane ever tells the layout.
  Result<void> OpenLane(LaneState& lane, std::chrono::milliseconds timeout, bool once);
  // Greets on a connection, which becomes the lane's.
  Result<void> Welcomed(LaneState& lane, TcpConnector::Connected connected,
                        std::chrono::milliseconds timeout);
  Result<void> StartReceiver(LaneState& lane);
  // `pages` are awaited once it is sent. REQUIRES: the lane is up.
  bool Send(LaneState& lane, std::span<const std::byte> bytes, uint64_t pages)
      POSTCOPY_REQUIRES(lane.send_mutex);
  void ReceiveLoop(LaneState& lane);
  // Nothing, or how the peer broke the protocol, or that it refused.
  std::optional<Error> Dispatch(const wire::PageFrameReader::Item& item, bool is_piece,
                                LaneState& lane);
  // The same of one kind of frame each; the cause, if it has to end the lane.
  std::optional<Error> DispatchPiece(const wire::PageFrameReader::Item& item, LaneState& lane);
  std::optional<Error> DispatchMap(const wire::PageFrameReader::Item& item, LaneState& lane);
  std::optional<Error> DispatchUnreadable(const wire::PageFrameReader::Item& item,
                                          LaneState& lane);
  // Whether `range` answers what was asked for on the lane; then it is asked for no more. `id` is set
  // on the urgent lane.
  bool TakeOrder(LaneState& lane, const wire::PageFields& page, const wire::RangeFields& run,
                 uint32_t& id);
  void Arrived(LaneState& lane, uint64_t pages);

  // The keeper's thread.
  void Keep();
  // Blocks until the lanes have to be made anew, or nothing: the transport stops.
  std::optional<Error> AwaitBreak() POSTCOPY_EXCLUDES(mutex_);
  // REQUIRES: the keeper's thread, and lanes that are up.
  bool IsSilent() const;
  Result<void> RestoreLanes();
  void EndLanes();
  void CloseSocket(LaneState& lane);
  void NoteBreak(const Error& cause) POSTCOPY_EXCLUDES(mutex_);
  // False once the transport stops.
  bool Pause(std::chrono::milliseconds time) POSTCOPY_EXCLUDES(mutex_);

  const TcpTransportOptions options_;
  TcpConnector connector_;
  MemoryLayout layout_;
  std::vector<std::unique_ptr<LaneState>> lanes_;  // the urgent one first
  PageSink* sink_ = nullptr;
  std::optional<QuietThread> keeper_;
  // Of the keeper's thread, once that runs.
  bool reached_ = false;      // whether the last attempt got a connection
  size_t good_endpoint_ = 0;  // that greeted last

  std::atomic<bool> served_{false};  // since the lanes were made something has come that was asked for

  Mutex mutex_;
  CondVar changed_;
  std::optional<Error> broken_ POSTCOPY_GUARDED_BY(mutex_);
  bool stopping_ POSTCOPY_GUARDED_BY(mutex_) = false;
};

}  // namespace postcopy
