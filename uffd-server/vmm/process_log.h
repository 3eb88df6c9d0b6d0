// What a process has written to its stderr since a moment: where QEMU says why it failed.
//
// Reads /proc; a file can be read, also when the process has ended, while of a pipe, a terminal or
// the journal only the place is known. Not thread-safe.
#pragma once

#include <fstream>
#include <string>

namespace postcopy {

class ProcessLog {
 public:
  ProcessLog() = default;
  // Opens the stderr of `pid`; what is written from now on is kept apart from what was before.
  explicit ProcessLog(int pid);

  // What counts begins now.
  void Mark();
  // A part of a sentence: `its stderr says "..."` with the last lines, or where the stderr goes.
  std::string Words();

 private:
  std::string place_;   // the target of /proc/PID/fd/2, or why it is not known
  std::ifstream file_;  // open if the stderr is a file
  std::streamoff mark_ = 0;
};

}  // namespace postcopy
