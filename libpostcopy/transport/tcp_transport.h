// Lanes over TCP (docs/wire-protocol.md): one urgent connection and some bulk ones, each with a
// thread that receives.
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
#include "platform/unique_fd.h"
#include "transport/page_transport.h"
#include "wire/page_frame_reader.h"

namespace postcopy {

struct TcpTransportOptions {
  std::vector<std::string> addresses;  // host:port, tried in this order
  SessionId session;
  size_t bulk_lanes = 2;
  std::chrono::milliseconds connect_timeout{3000};
};

class TcpTransport final : public PageTransport {
 public:
  // Connects and greets on every lane. Blocks at most connect_timeout per address and lane.
  static Result<std::unique_ptr<PageTransport>> Connect(const TcpTransportOptions& options);
  ~TcpTransport() override;

  const MemoryLayout& layout() const override { return layout_; }
  size_t bulk_lanes() const override { return bulk_.size(); }
  Result<void> Start(PageSink& sink) override;
  bool Request(uint32_t id, PageAddress page) override;
  bool RequestMap() override;
  bool Grant(size_t lane, RegionId region, PageRange range) override;
  void Stop() override;

 private:
  struct LaneState {
    UniqueFd socket;
    Mutex send_mutex;  // keeps frames whole; held across one small send
    std::unique_ptr<wire::PageFrameReader> reader;  // of the receiver's thread once that runs
    std::optional<QuietThread> receiver;
  };

  TcpTransport() = default;
  static Result<UniqueFd> OpenLane(const TcpTransportOptions& options, wire::Lane lane,
                                   MemoryLayout& layout);
  bool Send(LaneState& lane, std::span<const std::byte> bytes);
  void ReceiveLoop(LaneState& lane, size_t bulk_index, bool urgent);
  // False: the peer broke the protocol; `cause` says how.
  bool Dispatch(const wire::PageFrameReader::Item& item, bool is_piece, size_t bulk_index,
                bool urgent, std::optional<Error>& cause);

  MemoryLayout layout_;
  LaneState urgent_;
  std::vector<std::unique_ptr<LaneState>> bulk_;
  PageSink* sink_ = nullptr;
  // Set by Stop() before it shuts the sockets down; a receiver that sees its socket closed reads it
  // afterwards and so knows who closed it.
  std::atomic<bool> stopping_{false};
};

}  // namespace postcopy
