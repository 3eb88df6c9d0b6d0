// What an operator may type: addresses, and session ids in another daemon's calls.
#include <cstdlib>
#include <string>

#include "core/session_id.h"
#include "platform/tcp_socket.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  [[maybe_unused]] const auto address = postcopy::ParseSocketAddress(text);
  const auto id = postcopy::SessionId::Parse(text);
  if (id.has_value() && postcopy::SessionId::Parse(id->ToString()) != id) std::abort();
  return 0;
}
