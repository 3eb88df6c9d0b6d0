// A program that does to a test's memory what a destination's daemon does to a VM's: takes the
// session up from what was kept and brings what is missing. For killed_engine_test.cc, which kills
// it.
//
//   arrival_daemon USERFAULTFD KEEPSAKE RAM-FILE
//
// Descriptors are inherited; RAM-FILE -1: anonymous memory. Ends with 0 when all has come.
#include <cstdio>
#include <cstdlib>

#include "engine/engine.h"
#include "engine/keepsake.h"
#include "engine/userfault_device.h"
#include "transport/tcp_transport.h"

namespace postcopy {
namespace {

int Fail(const Error& error) {
  std::fprintf(stderr, "arrival_daemon: %s\n", error.message.c_str());
  return 1;
}

int Run(UniqueFd userfault, UniqueFd memfd, int ram_file) {
  auto keepsake = Keepsake::Open(std::move(memfd));
  if (!keepsake.ok()) return Fail(keepsake.error());
  const wire::KeepsakeHeader& header = keepsake->header();
  TcpTransportOptions options;
  options.addresses = header.data_addresses;
  options.session = header.session;
  auto transport = TcpTransport::ConnectLater(options, keepsake->layout());
  if (!transport.ok()) return Fail(transport.error());
  UserfaultDevice device(std::move(userfault), std::move(*Waiter::Create()));
  const wire::KeepsakeRegion& region = header.regions[0];
  Engine engine(std::move(*transport), device,
                {{region.address, region.region.size_bytes, ram_file, 0}},
                {.page_bytes = keepsake->page_bytes(), .takes_up = true});
  if (const auto started = engine.Start(); !started.ok()) return Fail(started.error());
  engine.StartBulk();
  switch (engine.WaitComplete(std::chrono::seconds(60))) {
    case Engine::Wait::kComplete:
      break;
    case Engine::Wait::kFailed:
      return Fail(*engine.failure());
    case Engine::Wait::kTimeout:
    case Engine::Wait::kStopped:
      return Fail({ErrorCode::kTimeout, "memory has not arrived"});
  }
  const auto finished = engine.Finish();
  return finished.ok() ? 0 : Fail(finished.error());
}

}  // namespace
}  // namespace postcopy

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  return postcopy::Run(postcopy::UniqueFd(std::atoi(argv[1])),
                       postcopy::UniqueFd(std::atoi(argv[2])), std::atoi(argv[3]));
}
