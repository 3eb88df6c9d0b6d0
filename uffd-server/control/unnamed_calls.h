// Calls that have begun and have not said yet what they are about. Each takes a thread of the server, so
// only the youngest few may go on: one more, and the oldest is cancelled. A caller that means it says
// what it wants with its first bytes.
#pragma once

#include <cstddef>
#include <list>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace grpc {
class ServerContext;
}  // namespace grpc

namespace postcopy {

// Thread-safe.
class UnnamedCalls {
 public:
  explicit UnnamedCalls(size_t limit) : limit_(limit) {}

  // A call, from when it is made until it is named or destroyed.
  class Call {
   public:
    // `context` outlives it.
    Call(UnnamedCalls& calls, grpc::ServerContext* context);
    ~Call() { Named(); }
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;

    // It has said what it is about, and is not cancelled any more. The second time: nothing.
    void Named();

   private:
    UnnamedCalls& calls_;
    grpc::ServerContext* const context_;
  };

 private:
  const size_t limit_;
  absl::Mutex mutex_;
  std::list<grpc::ServerContext*> oldest_first_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace postcopy
