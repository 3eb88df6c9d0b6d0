// What a load run has seen: finished requests in 100 ms windows, latencies, failures, gaps.
//
// Pure: time is an argument. Windows are aligned to whole 100 ms of CLOCK_REALTIME, so that the
// times of other processes (QEMU's events, the daemons') can be laid beside them.
#ifndef POSTCOPY_LAB_LOAD_TIMING_LOG_H_
#define POSTCOPY_LAB_LOAD_TIMING_LOG_H_

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace postcopy_lab {

using RealTime = std::chrono::time_point<std::chrono::system_clock, std::chrono::microseconds>;

class TimingLog {
 public:
  explicit TimingLog(RealTime start) : start_(start), last_finish_(start) {}

  // Calls come in the order of their times.
  void Finished(RealTime when, std::chrono::microseconds latency);
  // A request that will never finish. `path` may be empty (the connection could not be made).
  void Failed(RealTime when, const std::string& path, const std::string& cause);
  void LostConnection() { ++lost_connections_; }

  uint64_t finished() const { return latencies_us_.size(); }
  uint64_t failed() const { return failed_; }

  // The whole run as JSON, see `lab-load-client run --help`. `windows` has every window that lies
  // wholly between the start and `end`, empty ones too.
  nlohmann::json ToJson(RealTime end) const;

 private:
  struct Finish {
    int64_t time_us;  // since the epoch
    uint32_t latency_us;
    uint32_t gap_us;  // since the finish before it, of whatever connection
  };
  nlohmann::json Windows(RealTime end) const;

  const RealTime start_;
  RealTime last_finish_;
  std::vector<Finish> finishes_;
  std::vector<uint32_t> latencies_us_;
  nlohmann::json first_failures_ = nlohmann::json::array();
  uint64_t failed_ = 0;
  uint64_t lost_connections_ = 0;
  std::chrono::microseconds longest_gap_{0};
  RealTime longest_gap_start_{};
};

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_TIMING_LOG_H_
