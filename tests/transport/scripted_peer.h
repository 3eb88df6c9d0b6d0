// One end of TCP connections that says exactly what a test tells it to: a page server that may be
// wrong, or a destination that may be. Loopback, port chosen by the kernel.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "platform/tcp_socket.h"
#include "tests/wire/page_frames.h"

namespace postcopy {

// A connection on which a test sends bytes and reads whole frames.
class ScriptedLane {
 public:
  explicit ScriptedLane(UniqueFd socket) : socket_(std::move(socket)) {
    SetReceiveTimeout(socket_.get(), std::chrono::seconds(10));
  }

  void Send(const wire::Bytes& bytes) { SendAll(socket_.get(), bytes); }
  void Send(const wire::PageFrameHead& head) { SendAll(socket_.get(), head); }

  struct Received {
    wire::FrameHeader header;
    wire::Bytes body;
    // False: the peer has ended the connection, or said nothing for long.
    bool here = false;
    wire::PageFrame type() const { return static_cast<wire::PageFrame>(header.type); }
  };
  // The next frame; blocks.
  Received Read() {
    Received frame;
    wire::Bytes head(wire::kFrameHeaderBytes);
    if (!ReadExactly(head)) return frame;
    frame.header = wire::DecodeFrameHeader(head.data());
    frame.body.resize(frame.header.length);
    frame.here = ReadExactly(frame.body);
    return frame;
  }
  // The peer has ended the connection, after at most what it still had to say.
  bool Ended() {
    wire::Bytes rest(64 << 10);
    for (;;) {
      const auto received = Receive(socket_.get(), rest);
      if (received.outcome == SocketOutcome::kDone) continue;
      return received.outcome == SocketOutcome::kClosed;
    }
  }
  // Expects an ERROR frame and the end; its code, or 0.
  int ReadError() {
    const Received frame = Read();
    if (!frame.here || frame.type() != wire::PageFrame::kError) return 0;
    const auto error = wire::DecodeError(frame.body);
    return error.ok() && Ended() ? static_cast<int>(error->code) : 0;
  }
  void Close() { Shutdown(socket_.get()); }

 private:
  bool ReadExactly(std::span<std::byte> into) {
    while (!into.empty()) {
      const auto received = Receive(socket_.get(), into);
      if (received.outcome != SocketOutcome::kDone) return false;
      into = into.subspan(received.bytes);
    }
    return true;
  }

  UniqueFd socket_;
};

class ScriptedListener {
 public:
  ScriptedListener() : listener_(std::move(*ListenTcp("127.0.0.1:0"))) {
    address_ = "127.0.0.1:" + std::to_string(*LocalPort(listener_.get()));
  }
  const std::string& address() const { return address_; }
  // Blocks until a destination connects; reads its HELLO.
  std::unique_ptr<ScriptedLane> Accept() {
    std::string peer;
    auto lane = std::make_unique<ScriptedLane>(std::move(*AcceptTcp(listener_.get(), peer)));
    last_hello_ = lane->Read();
    return lane;
  }
  const ScriptedLane::Received& last_hello() const { return last_hello_; }

 private:
  UniqueFd listener_;
  std::string address_;
  ScriptedLane::Received last_hello_;
};

}  // namespace postcopy
