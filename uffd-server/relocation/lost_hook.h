// Why the hook of a VM that lives does not come back to this daemon, as far as its process tells.
#pragma once

#include <string>
#include <vector>

namespace postcopy {

// Of the VMM's command line: how it has confined itself so that its hook may not reach the daemon's
// socket, and what helps, as the end of a sentence; empty: it has not.
std::string WhyHookIsAway(const std::vector<std::string>& command_line);
// The same of a process, by its number.
std::string WhyHookIsAway(int vmm_pid);

}  // namespace postcopy
