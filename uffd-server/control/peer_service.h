// The daemons' side of the control plane: postcopy.v1.Peer over a Relocations.
//
// Checks what the other daemon sends (session ids, sizes, the length of the device state) before it
// passes it on; decides nothing. Only control_server.cc and its own source include it.
#pragma once

#include "control/postcopy.grpc.pb.h"
#include "control/unnamed_calls.h"
#include "relocation/relocation.h"

namespace postcopy {

// Thread-safe: gRPC calls it from many threads, one a call.
class PeerService final : public v1::Peer::Service {
 public:
  // `relocations` must outlive this.
  explicit PeerService(Relocations& relocations) : relocations_(relocations) {}

  grpc::Status Offer(grpc::ServerContext* context, const v1::OfferRequest* request,
                     v1::OfferResponse* response) override;
  grpc::Status Check(grpc::ServerContext* context, const v1::OfferRequest* request,
                     v1::CheckOfferResponse* response) override;
  grpc::Status WarmUp(grpc::ServerContext* context, const v1::WarmUpRequest* request,
                      v1::WarmUpResponse* response) override;
  grpc::Status OpenIncoming(grpc::ServerContext* context, const v1::SessionRequest* request,
                            v1::SessionResponse* response) override;
  // A device state that is not complete is never passed on.
  grpc::Status Load(grpc::ServerContext* context, grpc::ServerReader<v1::LoadRequest>* reader,
                    v1::SessionResponse* response) override;
  grpc::Status HandOver(grpc::ServerContext* context, const v1::SessionRequest* request,
                        v1::HandOverResponse* response) override;
  grpc::Status Abort(grpc::ServerContext* context, const v1::AbortRequest* request,
                     v1::SessionResponse* response) override;
  grpc::Status Hurry(grpc::ServerContext* context, const v1::SessionRequest* request,
                     v1::SessionResponse* response) override;
  grpc::Status Figures(grpc::ServerContext* context, const v1::SessionRequest* request,
                       v1::Progress* response) override;
  grpc::Status Arrived(grpc::ServerContext* context, const v1::ArrivedRequest* request,
                       v1::SessionResponse* response) override;
  grpc::Status ConfirmFenced(grpc::ServerContext* context, const v1::SessionRequest* request,
                             v1::SessionResponse* response) override;
  grpc::Status Query(grpc::ServerContext* context, const v1::QueryRequest* request,
                     v1::QueryResponse* response) override;

 private:
  static constexpr size_t kMaxUnnamedLoads = 32;

  Relocations& relocations_;
  UnnamedCalls unnamed_loads_{kMaxUnnamedLoads};
};

}  // namespace postcopy
