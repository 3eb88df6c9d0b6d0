// TcpTransport and a page server that says what the test tells it to.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "tests/transport/scripted_peer.h"
#include "transport/tcp_transport.h"

namespace postcopy {

// What the transport delivered, as lines of text.
class RecordingSink final : public PageSink {
 public:
  void OnPage(uint32_t id, PageAddress page, wire::Encoding encoding,
              std::span<const std::byte> content) override {
    Add("page " + std::to_string(id) + " " + std::to_string(page.page.value) +
        (encoding == wire::Encoding::kZero ? " zero" : " raw") + " " + std::to_string(content.size()));
  }
  void OnRun(size_t lane, RegionId region, PageRange range, wire::Encoding,
             std::span<const std::byte> content) override {
    // A run may come in several pieces: its pages are counted.
    const std::lock_guard lock(mutex_);
    run_pages_ += range.count_pages;
    run_bytes_ += content.size();
    lines_.push_back("run on " + std::to_string(lane) + " region " + std::to_string(region.value));
    changed_.notify_all();
  }
  void OnMap(const wire::MapFields& map) override {
    Add("map " + std::to_string(map.extents.size()) + (map.last ? " last" : ""));
  }
  void OnUnreadable(std::optional<size_t> lane, RegionId, PageRange range,
                    const Error& cause) override {
    Add("unreadable " + std::to_string(range.first.value) + "+" +
        std::to_string(range.count_pages) + (lane.has_value() ? " bulk: " : " urgent: ") +
        cause.message);
  }
  void OnInterrupted(const Error& cause) override { Add("interrupted: " + cause.message); }
  void OnUrgentRestored() override { Add("urgent restored"); }
  void OnBulkRestored() override { Add("bulk restored"); }

  // Blocks until as many lines are there.
  std::vector<std::string> Await(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(10), [&] { return lines_.size() >= count; });
    return lines_;
  }
  uint64_t AwaitRunPages(uint64_t pages) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(10), [&] { return run_pages_ >= pages; });
    return run_pages_;
  }
  uint64_t run_bytes() {
    const std::lock_guard lock(mutex_);
    return run_bytes_;
  }

 private:
  void Add(std::string line) {
    const std::lock_guard lock(mutex_);
    lines_.push_back(std::move(line));
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> lines_;
  uint64_t run_pages_ = 0;
  uint64_t run_bytes_ = 0;
};

class TcpTransportTest : public testing::Test {
 protected:
  static constexpr uint64_t kPages = 1000;
  inline static const MemoryLayout kLayout{
      {{"ram", kPages * kPageBytes}, {"vga", 16 * kPageBytes}}};

  TcpTransportOptions Options(size_t bulk_lanes) {
    TcpTransportOptions options;
    options.addresses = {listener_->address()};
    options.session = *SessionId::Parse("00112233445566778899aabbccddeeff");
    options.bulk_lanes = bulk_lanes;
    return options;
  }
  // Connects while the server answers each greeting with the next of `answers`.
  Result<std::unique_ptr<PageTransport>> ConnectAgainst(const std::vector<wire::Bytes>& answers,
                                                        size_t bulk_lanes = 0) {
    std::thread server([&] {
      for (const wire::Bytes& answer : answers) {
        lanes_.push_back(listener_->Accept());
        lanes_.back()->Send(answer);
        if (answer.empty()) lanes_.back()->Close();
      }
    });
    auto transport = TcpTransport::Connect(Options(bulk_lanes));
    server.join();
    return transport;
  }
  // A connected transport of `bulk_lanes`; lanes_ are the server's ends, urgent first.
  void Begin(size_t bulk_lanes) {
    auto transport = ConnectAgainst(
        std::vector<wire::Bytes>(bulk_lanes + 1, wire::EncodeWelcome({1, kLayout})), bulk_lanes);
    ASSERT_TRUE(transport.ok()) << transport.error().message;
    transport_ = std::move(*transport);
    ASSERT_TRUE(transport_->Start(sink_).ok());
  }
  // The server's ends of the next `count` lanes that are made, greeted.
  std::vector<std::unique_ptr<ScriptedLane>> AcceptLanes(size_t count) {
    std::vector<std::unique_ptr<ScriptedLane>> lanes;
    for (size_t i = 0; i < count; ++i) {
      lanes.push_back(listener_->Accept());
      lanes.back()->Send(wire::EncodeWelcome({1, kLayout}));
    }
    return lanes;
  }
  // What interrupts a connected transport when the server sends `bytes` on a lane.
  std::string InterruptedBy(const wire::Bytes& bytes, size_t lane,
                            const std::function<void(PageTransport&)>& ask = {}) {
    constexpr size_t bulk_lanes = 2;
    lanes_.clear();
    listener_ = std::make_unique<ScriptedListener>();  // in whose queue the transport before has no lane
    RecordingSink sink;
    auto transport = ConnectAgainst(
        std::vector<wire::Bytes>(bulk_lanes + 1, wire::EncodeWelcome({1, kLayout})), bulk_lanes);
    EXPECT_TRUE(transport.ok());
    EXPECT_TRUE((*transport)->Start(sink).ok());
    if (ask) ask(**transport);
    lanes_[lane]->Send(bytes);
    std::string interrupted;
    for (size_t count = 1; interrupted.empty(); ++count) {
      const auto lines = sink.Await(count);
      if (lines.size() < count) break;
      if (lines.back().rfind("interrupted", 0) == 0) interrupted = lines.back();
    }
    for (const auto& each : lanes_) EXPECT_TRUE(each->Ended());
    (*transport)->Stop();
    return interrupted;
  }

  std::unique_ptr<ScriptedListener> listener_ = std::make_unique<ScriptedListener>();
  std::vector<std::unique_ptr<ScriptedLane>> lanes_;
  RecordingSink sink_;
  std::unique_ptr<PageTransport> transport_;
};

}  // namespace postcopy
