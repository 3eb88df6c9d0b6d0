// How the daemon's log lines look.
#pragma once

namespace postcopy {

// From now on a line is "time level text", and its text is PrintableText(): whoever's words it repeats,
// it stays one line and no terminal obeys it.
void SetLogFormat();

}  // namespace postcopy
