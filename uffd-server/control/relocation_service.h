// The operators' side of the control plane: postcopy.v1.Relocation over a Relocations.
//
// Translates and streams; decides nothing. Only control_server.cc and its own source include it,
// since it brings gRPC's headers along.
#pragma once

#include <atomic>

#include "control/postcopy.grpc.pb.h"
#include "relocation/relocation.h"

namespace postcopy {

// Thread-safe: gRPC calls it from many threads, one a call.
class RelocationService final : public v1::Relocation::Service {
 public:
  // `relocations` must outlive this.
  explicit RelocationService(Relocations& relocations) : relocations_(relocations) {}

  // Ends every Watch soon, with kUnavailable. Does not wait.
  void EndWatches() { ending_.store(true, std::memory_order_relaxed); }

  grpc::Status List(grpc::ServerContext* context, const v1::ListRequest* request,
                    v1::ListResponse* response) override;
  grpc::Status Prepare(grpc::ServerContext* context, const v1::PrepareRequest* request,
                       v1::PrepareResponse* response) override;
  grpc::Status Check(grpc::ServerContext* context, const v1::CheckRequest* request,
                     v1::CheckResponse* response) override;
  grpc::Status Switch(grpc::ServerContext* context, const v1::SwitchRequest* request,
                      v1::SwitchResponse* response) override;
  grpc::Status Watch(grpc::ServerContext* context, const v1::WatchRequest* request,
                     grpc::ServerWriter<v1::Progress>* writer) override;
  grpc::Status Stats(grpc::ServerContext* context, const v1::StatsRequest* request,
                     v1::Progress* response) override;
  grpc::Status Hurry(grpc::ServerContext* context, const v1::HurryRequest* request,
                     v1::HurryResponse* response) override;
  grpc::Status SourceLost(grpc::ServerContext* context, const v1::SourceLostRequest* request,
                          v1::SourceLostResponse* response) override;
  grpc::Status DestinationLost(grpc::ServerContext* context,
                               const v1::DestinationLostRequest* request,
                               v1::DestinationLostResponse* response) override;
  grpc::Status Cancel(grpc::ServerContext* context, const v1::CancelRequest* request,
                      v1::CancelResponse* response) override;
  grpc::Status Release(grpc::ServerContext* context, const v1::ReleaseRequest* request,
                       v1::ReleaseResponse* response) override;
  grpc::Status Recover(grpc::ServerContext* context, const v1::RecoverRequest* request,
                       v1::RecoverResponse* response) override;

 private:
  absl::Status Stream(grpc::ServerContext* context, const v1::WatchRequest& request,
                      grpc::ServerWriter<v1::Progress>* writer);

  Relocations& relocations_;
  std::atomic<bool> ending_{false};
  std::atomic<int> watches_{0};  // each holds a thread of the server
};

}  // namespace postcopy
