// The first words on a lane over TCP: HELLO, and the source's WELCOME or its refusal.
#pragma once

#include <chrono>
#include <string>

#include "core/result.h"
#include "wire/page_protocol.h"

namespace postcopy {

// Greets on a connected socket. Blocks at most `timeout` after each byte. Fails if the source refuses
// (kUnavailable: it may not refuse later), says something else, or nothing; `address` is for the words.
Result<wire::Welcome> Greet(int socket, const wire::Hello& hello, std::chrono::milliseconds timeout,
                            const std::string& address);

// That the source does what the protocol does not allow, for `cause`.
Error Broken(std::string cause);

// What an ERROR frame's body says.
Error RefusalIn(std::span<const std::byte> body);

}  // namespace postcopy
