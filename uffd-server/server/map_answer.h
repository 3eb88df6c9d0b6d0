// Answers a MAP_REQUEST beside what the urgent lane does: finding out where gigabytes have data takes
// seconds, and the guest's pages do not wait for it.
//
// What was found is kept in the session, for a destination that asks again on a new lane. Meanwhile an
// empty MAP frame goes out every kSignOfLife, so that the destination does not take the source for lost.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/page_server.h"

namespace postcopy {

class MapAnswer {
 public:
  static constexpr std::chrono::milliseconds kSignOfLife{400};

  // `send` sends a frame (false: the lane has ended), `fail` is told why there will be no answer; both are
  // called on a thread of this object's, until it is destroyed.
  MapAnswer(std::shared_ptr<ServedSession> session,
            std::function<bool(std::span<const std::byte>)> send,
            std::function<void(const std::string&)> fail);
  // Begins to answer. Once. Fails if no thread can be made.
  Result<void> Start();
  // Ends the answer where it is; waits for a sign of life at most, not for what is being found out.
  ~MapAnswer();

 private:
  void Run();

  const std::shared_ptr<ServedSession> session_;
  const std::function<bool(std::span<const std::byte>)> send_;
  const std::function<void(const std::string&)> fail_;
  std::atomic<bool> ending_{false};
  std::optional<QuietThread> thread_;
};

}  // namespace postcopy
