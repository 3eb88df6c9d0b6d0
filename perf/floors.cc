// What the machine can do at best, in the terms that a relocation is made of: a round trip over TCP, a
// stream, a userfaultfd's round trip, memcpy, and installing a page by each method.
//
//   floors serve HOST:PORT   answers the other end until it goes, then ends
//   floors HOST:PORT         measures, and prints one JSON object; times are medians
//
// Whoever waits runs on the first processor that this process may use, whoever answers on the last, as
// two hosts do, or a vCPU and the daemon. Left to the scheduler, the two often end up on one processor,
// which then hands over from one to the other without waking a processor that sleeps: a third of the time
// and less, and nothing that a VM sees. With one processor (`cpus` 1) there is only that.
//
// Not responsible for judging anything: figures of a run compare with floors of the same run.
#include <sched.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "platform/tcp_socket.h"
#include "tests/engine/memory_fixture.h"

namespace postcopy {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kRequestBytes = 16;
constexpr uint64_t kStreamBytes = uint64_t{1} << 30;
constexpr int kRoundTrips = 4000;
constexpr int kFaults = 4000;
constexpr uint64_t kInstallPages = 16 * 1024;  // 64 MiB
constexpr uint64_t kBatchPages = 64;
constexpr int kRepeats = 5;

// The first byte of a request: what is wanted.
enum class Wanted : uint8_t { kPageBlocking = 'b', kPageSpinning = 's', kStream = 'm' };

enum class Cpu { kFirst, kLast };

[[noreturn]] void Die(const std::string& text) {
  std::fprintf(stderr, "floors: %s\n", text.c_str());
  std::exit(1);
}

template <typename T>
T Checked(Result<T> result) {
  if (!result.ok()) Die(result.error().message);
  return std::move(*result);
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

// The processors that this process could use when it began.
const cpu_set_t& AllowedCpus() {
  static const cpu_set_t allowed = [] {
    cpu_set_t cpus;
    if (sched_getaffinity(0, sizeof cpus, &cpus) != 0) Die("sched_getaffinity fails");
    return cpus;
  }();
  return allowed;
}

// The calling thread runs there and nowhere else from now on.
void RunOn(Cpu which) {
  int chosen = -1;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &AllowedCpus())) continue;
    chosen = cpu;
    if (which == Cpu::kFirst) break;
  }
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(chosen, &one);
  if (sched_setaffinity(0, sizeof one, &one) != 0) Die("sched_setaffinity fails");
}

double MicrosecondsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

// False: the other end is gone.
bool ReadExactly(int socket, std::byte* to, size_t size_bytes, bool spin) {
  while (size_bytes > 0) {
    const ssize_t got = recv(socket, to, size_bytes, spin ? MSG_DONTWAIT : 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (got <= 0) return false;
    to += got;
    size_bytes -= static_cast<size_t>(got);
  }
  return true;
}

void Send(int socket, std::span<const std::byte> bytes) {
  if (SendAll(socket, bytes).outcome != SocketOutcome::kDone) Die("send: the other end is gone");
}

int Serve(const std::string& address) {
  RunOn(Cpu::kLast);
  const UniqueFd listener = Checked(ListenTcp(address));
  std::printf("listening\n");
  std::fflush(stdout);
  std::string peer;
  const UniqueFd socket = Checked(AcceptTcp(listener.get(), peer));
  std::vector<std::byte> content(256 << 10, std::byte{7});
  bool spin = false;
  for (;;) {
    std::byte request[kRequestBytes];
    if (!ReadExactly(socket.get(), request, sizeof request, spin)) return 0;
    const auto wanted = static_cast<Wanted>(request[0]);
    spin = wanted == Wanted::kPageSpinning;
    if (wanted == Wanted::kStream) {
      for (uint64_t sent = 0; sent < kStreamBytes; sent += content.size()) {
        Send(socket.get(), content);
      }
    } else {
      Send(socket.get(), {content.data(), kPageBytes});
    }
  }
}

double RoundTrip(int socket, Wanted wanted) {
  std::byte request[kRequestBytes] = {static_cast<std::byte>(wanted)};
  std::vector<std::byte> page(kPageBytes);
  std::vector<double> times;
  for (int i = 0; i < kRoundTrips; ++i) {
    const auto start = Clock::now();
    Send(socket, request);
    if (!ReadExactly(socket, page.data(), page.size(), wanted == Wanted::kPageSpinning)) {
      Die("receive: the other end is gone");
    }
    times.push_back(MicrosecondsSince(start));
  }
  return Median(times);
}

double StreamGigabytes(int socket) {
  std::byte request[kRequestBytes] = {static_cast<std::byte>(Wanted::kStream)};
  std::vector<std::byte> buffer(256 << 10);
  const auto start = Clock::now();
  Send(socket, request);
  for (uint64_t got = 0; got < kStreamBytes; got += buffer.size()) {
    if (!ReadExactly(socket, buffer.data(), buffer.size(), false)) Die("the stream ends early");
  }
  return static_cast<double>(kStreamBytes) / 1000 / MicrosecondsSince(start);
}

double MemcpyGigabytes() {
  constexpr size_t kBytes = 64 << 20;
  std::vector<std::byte> from(kBytes, std::byte{1}), to(kBytes);
  std::vector<double> times;
  for (int i = 0; i < kRepeats; ++i) {
    const auto start = Clock::now();
    std::memcpy(to.data(), from.data(), kBytes);
    times.push_back(MicrosecondsSince(start));
  }
  return static_cast<double>(kBytes) / 1000 / Median(times);
}

// A touch of a missing page, answered by another thread of this process, there.
double FaultRoundTrip(bool spin, Cpu answered_on) {
  ArmedMemory memory(kFaults * kPageBytes, Backing::kAnonymous);
  FaultDevice& device = memory.device();
  const MappedRegion region = memory.region();
  const std::vector<std::byte> page(kPageBytes, std::byte{1});
  std::atomic<bool> done{false};
  std::thread handler([&] {
    RunOn(answered_on);
    while (spin ? !done.load(std::memory_order_relaxed) : device.Wait()) {
      FaultEvent event;
      const auto count = device.ReadEvents({&event, 1});
      if (!count.ok()) Die(count.error().message);
      if (*count == 0) continue;
      device.Copy(region, {(event.address - region.address) / kPageBytes}, page);
    }
  });
  std::vector<double> times;
  for (uint64_t i = 0; i < kFaults; ++i) {
    const auto start = Clock::now();
    [[maybe_unused]] const volatile std::byte touched = memory.memory()[i * kPageBytes];
    times.push_back(MicrosecondsSince(start));
  }
  done = true;
  device.WakeUp();
  handler.join();
  return Median(times);
}

using Install = void (*)(FaultDevice&, const MappedRegion&, PageRange,
                         std::span<const std::byte> content);

void Copy(FaultDevice& device, const MappedRegion& region, PageRange range,
          std::span<const std::byte> content) {
  device.Copy(region, range.first, content);
}

void WriteAndContinue(FaultDevice& device, const MappedRegion& region, PageRange range,
                      std::span<const std::byte> content) {
  (void)device.WriteFile(region, range.first, content);
  device.Continue(region, range);
}

void Zero(FaultDevice& device, const MappedRegion& region, PageRange range,
          std::span<const std::byte>) {
  device.Zero(region, range);
}

// Microseconds a page, `batch` pages at a time.
double InstallTime(Backing backing, uint64_t batch, Install install) {
  const std::vector<std::byte> content(batch * kPageBytes, std::byte{1});
  std::vector<double> times;
  for (int i = 0; i < kRepeats; ++i) {
    ArmedMemory memory(kInstallPages * kPageBytes, backing);
    const auto start = Clock::now();
    for (uint64_t page = 0; page < kInstallPages; page += batch) {
      install(memory.device(), memory.region(), {{page}, batch}, content);
    }
    times.push_back(MicrosecondsSince(start) / kInstallPages);
    if (memory.memory()[kPageBytes] != (install == Zero ? std::byte{0} : std::byte{1})) {
      Die("a page was not installed");
    }
  }
  return Median(times);
}

int Measure(const std::string& address) {
  const int cpus = std::min(CPU_COUNT(&AllowedCpus()), 2);
  RunOn(Cpu::kFirst);
  const UniqueFd socket = Checked(ConnectTcp(address, std::chrono::seconds(5)));
  std::printf("{\"cpus\": %d, \"tcp_round_trip_us\": %.1f, \"tcp_round_trip_spinning_us\": %.1f", cpus,
              RoundTrip(socket.get(), Wanted::kPageBlocking),
              RoundTrip(socket.get(), Wanted::kPageSpinning));
  std::printf(", \"tcp_stream_gb_s\": %.2f", StreamGigabytes(socket.get()));
  std::printf(", \"userfault_round_trip_us\": %.1f, \"userfault_round_trip_spinning_us\": %.1f",
              FaultRoundTrip(false, Cpu::kLast), FaultRoundTrip(true, Cpu::kLast));
  std::printf(", \"userfault_round_trip_same_cpu_us\": %.1f", FaultRoundTrip(false, Cpu::kFirst));
  std::printf(", \"memcpy_gb_s\": %.1f", MemcpyGigabytes());
  for (const uint64_t batch : {uint64_t{1}, kBatchPages}) {
    std::printf(", \"install_%d_pages_us\": {\"copy_anonymous\": %.2f, \"copy_file\": %.2f, "
                "\"write_continue\": %.2f, \"zero_anonymous\": %.2f}",
                static_cast<int>(batch), InstallTime(Backing::kAnonymous, batch, Copy),
                InstallTime(Backing::kFile, batch, Copy),
                InstallTime(Backing::kFileAllocated, batch, WriteAndContinue),
                InstallTime(Backing::kAnonymous, batch, Zero));
  }
  std::printf("}\n");
  return 0;
}

}  // namespace
}  // namespace postcopy

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "serve") == 0) return postcopy::Serve(argv[2]);
  if (argc == 2 && argv[1][0] != '-') return postcopy::Measure(argv[1]);
  std::fprintf(stderr, "usage: floors serve HOST:PORT | floors HOST:PORT\n");
  return 2;
}
