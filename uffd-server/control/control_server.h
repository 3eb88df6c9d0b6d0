// The gRPC server of a daemon: both services of postcopy.v1 and the standard health service, on a
// list of addresses.
//
// Not responsible for encryption: until there is any, an address that other hosts can reach needs
// the operator's explicit word.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "relocation/relocation.h"

namespace postcopy {

struct ControlServerOptions {
  // host:port, [ipv6]:port or unix:path. Port 0 takes a free one.
  std::vector<std::string> addresses;
  // Also listen where other hosts can reach it, without encryption (`--insecure`).
  bool insecure = false;
};

// Thread-safe.
class ControlServer {
 public:
  // Listens and serves from other threads until Stop(). kInvalidArgument: no address, or
  // a text that is none.
  // kFailedPrecondition: an address is neither loopback nor Unix and `insecure` is false.
  // kUnavailable: an address cannot be listened on; the message names it and the cause.
  // `relocations` must outlive the server.
  static absl::StatusOr<std::unique_ptr<ControlServer>> Start(const ControlServerOptions& options,
                                                              Relocations& relocations);
  // Stops.
  ~ControlServer();

  // As listened on, with the ports that were taken.
  const std::vector<std::string>& addresses() const { return addresses_; }

  // Takes no new call, ends every Watch, gives running calls 2 s, then cancels them; returns when
  // each has returned. A call that blocks in `relocations` is waited for. The second time: nothing.
  void Stop();

 private:
  struct Serving;  // what gRPC needs
  explicit ControlServer(std::unique_ptr<Serving> serving, std::vector<std::string> addresses);

  const std::unique_ptr<Serving> serving_;
  const std::vector<std::string> addresses_;
};

}  // namespace postcopy
