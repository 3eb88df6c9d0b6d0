// What the hook keeps for its process: the table of RAM blocks and the client that registers them.
//
// Nothing exists until the first RAM block is found: no thread, no socket, no word on stderr. All
// state is constant-initialised, is never destroyed, and can be used before any constructor has run.
// On any trouble the VM runs on unhooked and the reason stands on stderr. errno may change.
#pragma once

#include <cstdint>

#include "preload/guest_ram.h"

namespace postcopy::preload {

// Notes a mapping that Recognise() did not call kNotGuestRam; the first one starts the client. Any
// thread.
void RecordMapping(const MmapCall& call, Verdict verdict);

// Forgets what was noted in a range that is about to be unmapped. Any thread; a few loads if nothing
// was ever noted.
void ForgetMapping(uint64_t address, uint64_t size_bytes);

// Turns the entries of `preload` (a value of LD_PRELOAD) whose last path component is that of `own`
// into blanks, which the loader passes over. Its length stays. Exposed for its test.
void BlankOwnEntry(char* preload, const char* own);

}  // namespace postcopy::preload
