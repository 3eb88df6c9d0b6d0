// Fills a key-value server: `set` of all keys at version 0, many on their way at once.
#ifndef POSTCOPY_LAB_LOAD_KV_FILL_H_
#define POSTCOPY_LAB_LOAD_KV_FILL_H_

#include <chrono>
#include <string>

#include "kv_model.h"
#include "tcp_connection.h"

namespace postcopy_lab {

// Blocks until the server has stored all; returns what went wrong, empty if nothing. `timeout`:
// without any progress.
std::string FillServer(const Server& server, const KvModel& model,
                       std::chrono::milliseconds timeout);

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_KV_FILL_H_
