// A source and a destination of guest RAM in one process: RAM files, a page server on loopback, a
// userfaultfd over the destination's mapping. For tests that run the real path without a VM.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "engine/userfault_device.h"
#include "gmock/gmock.h"
#include "platform/duplicate_fd.h"
#include "platform/ram_file.h"
#include "server/page_server.h"
#include "transport/tcp_transport.h"

namespace postcopy {

// An anonymous tmpfs file of the given size.
inline UniqueFd MakeRamFile(uint64_t size_bytes) {
  UniqueFd file(memfd_create("ram", MFD_CLOEXEC));
  EXPECT_EQ(ftruncate(file.get(), static_cast<off_t>(size_bytes)), 0);
  return file;
}

// Every third page random, every third zero but written, the rest holes.
inline std::vector<std::byte> FillSource(int file, uint64_t pages, uint32_t seed) {
  std::vector<std::byte> content(pages * kPageBytes);
  std::mt19937_64 random(seed);
  for (uint64_t page = 0; page < pages; ++page) {
    if (page % 3 == 2) continue;
    std::byte* at = content.data() + page * kPageBytes;
    if (page % 3 == 0) {
      for (size_t i = 0; i < kPageBytes; i += 8) {
        const uint64_t word = random();
        std::memcpy(at + i, &word, 8);
      }
    }
    EXPECT_EQ(WriteRamFile(file, page * kPageBytes, {at, kPageBytes}), 0);
  }
  return content;
}

enum class Backing { kFile, kFileAllocated, kAnonymous };

// The destination's mapping, armed.
class ArmedMemory {
 public:
  ArmedMemory(uint64_t size_bytes, Backing backing) : size_bytes_(size_bytes), backing_(backing) {
    if (backing != Backing::kAnonymous) file_ = MakeRamFile(size_bytes);
    Arm();
  }
  // In a file that the caller has made, of that size.
  ArmedMemory(uint64_t size_bytes, UniqueFd file)
      : size_bytes_(size_bytes), backing_(Backing::kFile), file_(std::move(file)) {
    Arm();
  }
  ~ArmedMemory() {
    if (memory_ != nullptr) Unplug();
  }

  MappedRegion region() const {
    return {reinterpret_cast<uint64_t>(memory_), size_bytes_, file_.valid() ? file_.get() : -1, 0};
  }
  std::byte* memory() { return memory_; }
  int file() const { return file_.valid() ? file_.get() : -1; }
  int userfault() const { return userfault_.get(); }
  FaultDevice& device() { return *device_; }
  // Ends the mapping, as a VMM does to a DIMM. Any thread may have mapped something else there since: nothing
  // of this memory but its files may be used any more.
  void Unplug() { munmap(std::exchange(memory_, nullptr), size_bytes_); }
  // As a daemon and a VMM do when all is here. REQUIRES: an engine that has finished.
  void CloseDevice() {
    device_.reset();
    userfault_.Reset();
  }
  Backing backing() const { return backing_; }

 private:
  void Arm() {
    const int fd = file();
    const int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    void* mapped = mmap(nullptr, size_bytes_, PROT_READ | PROT_WRITE, flags, fd, 0);
    EXPECT_NE(mapped, MAP_FAILED);
    memory_ = static_cast<std::byte*>(mapped);
    madvise(mapped, size_bytes_, MADV_NOHUGEPAGE);
    auto userfault = CreateUserfault(-1);
    EXPECT_TRUE(userfault.ok());
    EXPECT_TRUE(RegisterFaults(userfault->get(), region().address, size_bytes_,
                               backing_ == Backing::kAnonymous ? FaultMode::kMissing
                                                              : FaultMode::kMissingAndMinor)
                    .ok());
    if (backing_ == Backing::kFileAllocated) {
      EXPECT_TRUE(AllocateRamFile(fd, 0, size_bytes_).ok());
    }
    userfault_ = std::move(*DuplicateFd(*userfault));
    device_ = std::make_unique<UserfaultDevice>(std::move(*userfault), *Waiter::Create());
  }

  uint64_t size_bytes_;
  Backing backing_;
  UniqueFd file_;
  std::byte* memory_ = nullptr;
  UniqueFd userfault_;  // as a VMM keeps it
  std::unique_ptr<UserfaultDevice> device_;
};

// A page server on loopback with one session.
class Source {
 public:
  explicit Source(uint64_t pages, uint32_t seed = 1, bool frozen = true) {
    UniqueFd file = MakeRamFile(pages * kPageBytes);
    content_ = FillSource(file.get(), pages, seed);
    std::vector<RamFileSource::RegionFile> files;
    files.push_back({std::move(file), 0});
    server_ = std::move(PageServer::Listen({"127.0.0.1:0"})).value();
    source_ = std::make_shared<RamFileSource>(MemoryLayout{{{"ram", pages * kPageBytes}}},
                                              std::move(files));
    server_->Add(session_, source_);
    if (frozen) server_->Freeze(session_);
  }
  // Over `addresses`; none: the server's.
  std::unique_ptr<PageTransport> Connect(size_t bulk_lanes = 2,
                                         std::vector<std::string> addresses = {}) {
    TcpTransportOptions options;
    options.addresses = addresses.empty() ? server_->addresses() : std::move(addresses);
    options.session = session_;
    options.bulk_lanes = bulk_lanes;
    auto transport = TcpTransport::Connect(options);
    EXPECT_TRUE(transport.ok()) << (transport.ok() ? "" : transport.error().message);
    return std::move(*transport);
  }
  const std::vector<std::byte>& content() const { return content_; }
  PageServer& server() { return *server_; }
  const SessionId& session() const { return session_; }

 private:
  SessionId session_{{std::byte{1}, std::byte{2}}};
  std::vector<std::byte> content_;
  std::shared_ptr<RamFileSource> source_;
  std::unique_ptr<PageServer> server_;
};

}  // namespace postcopy
