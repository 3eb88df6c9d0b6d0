// A host that shuts down while another host still needs memory of it: the daemon's end waits.
//
// A restart of the daemon alone is not delayed: the next daemon goes on where this one was.
#pragma once

#include <signal.h>

#include <chrono>
#include <string>

#include "relocation/relocation.h"

namespace postcopy {

// systemd's own socket, for root; it answers during the shutdown, too, when the message bus has ended.
inline constexpr const char* kSystemManagerSocket = "/run/systemd/private";

// Whether the service manager behind `manager_socket` says that the host is shutting down or
// rebooting. False also where there is none, or it does not answer within 5 s.
bool HostIsShuttingDown(const std::string& manager_socket);

// Returns when no other host needs memory of this one, after `limit`, or when one of `ends` has come
// again (they must be blocked). Looks each `every`, and tells the log now and then and the service manager
// each time how much is left; asks the latter for the time.
void AwaitOwedMemory(Relocations& relocations, std::chrono::seconds limit, const sigset_t& ends,
                     std::chrono::milliseconds every = std::chrono::seconds(1));

}  // namespace postcopy
