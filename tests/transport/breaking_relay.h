// Stands between a destination and a page server, on loopback, and breaks the connections: each after
// another number of bytes from the server, so anywhere in a frame. After so many breaks it lets all pass.
#pragma once

#include <atomic>
#include <list>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "platform/tcp_socket.h"

namespace postcopy {

class BreakingRelay {
 public:
  // Each connection breaks after 1 to `most_bytes` bytes, until `breaks` have broken.
  BreakingRelay(std::string server, uint32_t seed, int breaks, uint64_t most_bytes)
      : server_(std::move(server)),
        random_(seed),
        breaks_left_(breaks),
        most_bytes_(most_bytes),
        listener_(std::move(*ListenTcp("127.0.0.1:0"))),
        acceptor_([this] { Accept(); }) {}
  ~BreakingRelay() {
    Shutdown(listener_.get());
    acceptor_.join();
    for (Connection& each : connections_) {
      Break(each);
      each.up.join();
      each.down.join();
    }
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(*LocalPort(listener_.get())); }

 private:
  struct Connection {
    UniqueFd destination;
    UniqueFd server;
    std::thread up;
    std::thread down;
  };

  static void Break(Connection& connection) {
    Shutdown(connection.destination.get());
    Shutdown(connection.server.get());
  }
  void Accept() {
    std::string peer;
    for (;;) {
      auto accepted = AcceptTcp(listener_.get(), peer);
      if (!accepted.ok()) return;
      auto server = ConnectTcp(server_, std::chrono::seconds(5));
      if (!server.ok()) continue;
      Connection& connection = connections_.emplace_back();
      connection.destination = std::move(*accepted);
      connection.server = std::move(*server);
      const uint64_t bytes = 1 + random_() % most_bytes_;
      connection.up = std::thread([&connection] {
        Pump(connection.destination.get(), connection.server.get());
        Break(connection);
      });
      connection.down = std::thread([this, &connection, bytes] {
        if (breaks_left_.fetch_sub(1) > 0) {
          Pump(connection.server.get(), connection.destination.get(), bytes);
        } else {
          Pump(connection.server.get(), connection.destination.get());
        }
        Break(connection);
      });
    }
  }
  static void Pump(int from, int to, uint64_t bytes = ~uint64_t{0}) {
    std::vector<std::byte> buffer(16 << 10);
    while (bytes > 0) {
      const auto got = Receive(from, std::span(buffer).first(std::min<uint64_t>(bytes, buffer.size())));
      if (got.outcome != SocketOutcome::kDone) return;
      if (SendAll(to, std::span(buffer).first(got.bytes)).outcome != SocketOutcome::kDone) return;
      bytes -= got.bytes;
    }
  }

  const std::string server_;
  std::mt19937_64 random_;  // of the acceptor
  std::atomic<int> breaks_left_;
  const uint64_t most_bytes_;
  UniqueFd listener_;
  std::list<Connection> connections_;  // of the acceptor, then of the destructor
  std::thread acceptor_;
};

}  // namespace postcopy
