#include "control/unnamed_calls.h"

#include <grpcpp/server_context.h>

namespace postcopy {

UnnamedCalls::Call::Call(UnnamedCalls& calls, grpc::ServerContext* context)
    : calls_(calls), context_(context) {
  absl::MutexLock lock(&calls_.mutex_);
  calls_.oldest_first_.push_back(context_);
  if (calls_.oldest_first_.size() <= calls_.limit_) return;
  // Under the lock, since the call that ends takes itself off the list first. Only marks it.
  calls_.oldest_first_.front()->TryCancel();
  calls_.oldest_first_.pop_front();
}

void UnnamedCalls::Call::Named() {
  absl::MutexLock lock(&calls_.mutex_);
  calls_.oldest_first_.remove(context_);
}

}  // namespace postcopy
