// Faults that KVM itself takes: a guest of a few instructions on /dev/kvm, in 32-bit protected mode,
// reads memory that comes from the page server, while signals arrive at its vCPUs.
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <optional>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/engine/memory_fixture.h"

namespace postcopy {
namespace {

constexpr uint64_t kPages = 1536;
constexpr uint64_t kCodeBytes = 0x10000;       // guest-physical 0: code, then the vCPUs' results
constexpr uint64_t kResultsAt = 0x8000;
constexpr uint64_t kMemoryAt = 0x1000000;      // guest-physical, of what the engine brings

// Adds up the first and the last word of each page from ebx to edx, and stores the sum at esi.
constexpr uint8_t kCode[] = {
    0x31, 0xc0,                          //       xor eax, eax
    0x03, 0x03,                          // next: add eax, [ebx]
    0x03, 0x83, 0xfc, 0x0f, 0x00, 0x00,  //       add eax, [ebx + 4092]
    0x81, 0xc3, 0x00, 0x10, 0x00, 0x00,  //       add ebx, 4096
    0x39, 0xd3,                          //       cmp ebx, edx
    0x72, 0xee,                          //       jb next
    0x89, 0x06,                          //       mov [esi], eax
    0xf4,                                //       hlt
};

uint32_t WordAt(const std::byte* at) {
  uint32_t word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

uint32_t ExpectedSum(const std::vector<std::byte>& content) {
  uint32_t sum = 0;
  for (uint64_t page = 0; page < kPages; ++page) {
    sum += WordAt(&content[page * kPageBytes]) + WordAt(&content[page * kPageBytes + 4092]);
  }
  return sum;
}

// A virtual machine with two memory slots; its vCPUs run kCode.
class Guest {
 public:
  Guest(int kvm, std::byte* memory) : vm_(ioctl(kvm, KVM_CREATE_VM, 0)) {
    EXPECT_TRUE(vm_.valid());
    code_ = static_cast<std::byte*>(mmap(nullptr, kCodeBytes, PROT_READ | PROT_WRITE,
                                         MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    std::memcpy(code_, kCode, sizeof kCode);
    AddSlot(0, 0, kCodeBytes, code_);
    AddSlot(1, kMemoryAt, kPages * kPageBytes, memory);
    run_bytes_ = static_cast<size_t>(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0));
  }
  ~Guest() { munmap(code_, kCodeBytes); }

  // Runs vCPU `index` to its end in the calling thread and returns its sum.
  uint32_t Run(unsigned index, std::atomic<uint64_t>& interrupted) {
    const UniqueFd vcpu(ioctl(vm_.get(), KVM_CREATE_VCPU, index));
    EXPECT_TRUE(vcpu.valid());
    auto* run = static_cast<kvm_run*>(
        mmap(nullptr, run_bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.get(), 0));
    kvm_sregs special{};
    EXPECT_EQ(ioctl(vcpu.get(), KVM_GET_SREGS, &special), 0);
    special.cs = Flat(11);
    special.ds = special.es = special.ss = Flat(3);
    special.cr0 |= 1;  // protected mode
    EXPECT_EQ(ioctl(vcpu.get(), KVM_SET_SREGS, &special), 0);
    kvm_regs registers{};
    registers.rflags = 2;
    registers.rbx = kMemoryAt;
    registers.rdx = kMemoryAt + kPages * kPageBytes;
    registers.rsi = kResultsAt + 4 * index;
    EXPECT_EQ(ioctl(vcpu.get(), KVM_SET_REGS, &registers), 0);
    for (;;) {
      if (ioctl(vcpu.get(), KVM_RUN, 0) == 0) break;
      if (errno != EINTR && errno != EAGAIN) {
        ADD_FAILURE() << "KVM_RUN: " << std::strerror(errno);
        break;
      }
      interrupted.fetch_add(1, std::memory_order_relaxed);
    }
    EXPECT_EQ(run->exit_reason, unsigned{KVM_EXIT_HLT});
    munmap(run, run_bytes_);
    return WordAt(code_ + kResultsAt + 4 * index);
  }

 private:
  static kvm_segment Flat(uint8_t type) {
    kvm_segment segment{};
    segment.limit = 0xffffffff;
    segment.selector = type == 11 ? 8 : 16;
    segment.type = type;
    segment.present = segment.db = segment.s = segment.g = 1;
    return segment;
  }
  void AddSlot(uint32_t slot, uint64_t at, uint64_t size_bytes, std::byte* memory) {
    kvm_userspace_memory_region region{};
    region.slot = slot;
    region.guest_phys_addr = at;
    region.memory_size = size_bytes;
    region.userspace_addr = reinterpret_cast<uint64_t>(memory);
    EXPECT_EQ(ioctl(vm_.get(), KVM_SET_USER_MEMORY_REGION, &region), 0);
  }

  UniqueFd vm_;
  std::byte* code_ = nullptr;
  size_t run_bytes_ = 0;
};

struct Shape {
  Backing backing;
  unsigned vcpus;
};

class KvmTest : public testing::TestWithParam<Shape> {
 protected:
  void SetUp() override {
    kvm_ = UniqueFd(open("/dev/kvm", O_RDWR | O_CLOEXEC));
    if (!kvm_.valid()) GTEST_SKIP() << "missing: /dev/kvm (" << std::strerror(errno) << ")";
    source_.emplace(kPages);
    memory_.emplace(kPages * kPageBytes, GetParam().backing);
    engine_.emplace(source_->Connect(), memory_->device(), std::vector{memory_->region()});
    ASSERT_TRUE(engine_->Start().ok());
    guest_.emplace(kvm_.get(), memory_->memory());
  }

  // Starts the vCPUs; each reads all of the memory and must find the right sum.
  void StartVcpus() {
    running_ = GetParam().vcpus;
    for (unsigned i = 0; i < GetParam().vcpus; ++i) {
      vcpus_.emplace_back([this, i] {
        EXPECT_EQ(guest_->Run(i, interrupted_), ExpectedSum(source_->content()));
        running_.fetch_sub(1);
      });
    }
  }
  void JoinVcpus() {
    for (std::thread& vcpu : vcpus_) vcpu.join();
  }

  UniqueFd kvm_;
  std::optional<Source> source_;
  std::optional<ArmedMemory> memory_;
  std::optional<Engine> engine_;
  std::optional<Guest> guest_;
  std::atomic<uint64_t> interrupted_{0};
  std::atomic<unsigned> running_{0};
  std::vector<std::thread> vcpus_;
};
INSTANTIATE_TEST_SUITE_P(
    Shapes, KvmTest,
    testing::Values(Shape{Backing::kFileAllocated, 1}, Shape{Backing::kFileAllocated, 2},
                    Shape{Backing::kAnonymous, 1}, Shape{Backing::kAnonymous, 2}),
    [](const auto& instance) {
      return std::string(instance.param.backing == Backing::kAnonymous ? "Anonymous" : "File") +
             std::to_string(instance.param.vcpus) + "Vcpus";
    });

// All of it by demand; several vCPUs that want the same page ask for it once.
TEST_P(KvmTest, EveryPageThatTheGuestReadsIsFetchedOnce) {
  StartVcpus();
  JoinVcpus();
  EXPECT_EQ(engine_->Figures().faults.faults, kPages);
}

// A signal interrupts KVM_RUN or waits for the page; either way no page is lost or wrong.
TEST_P(KvmTest, SignalsToAVcpuThatWaitsForAPageDoNoHarm) {
  struct sigaction nothing{};
  nothing.sa_handler = [](int) {};
  ASSERT_EQ(sigaction(SIGUSR1, &nothing, nullptr), 0);
  StartVcpus();
  uint64_t sent = 0;
  while (running_.load() > 0) {
    // The threads live until they are joined.
    for (std::thread& vcpu : vcpus_) sent += pthread_kill(vcpu.native_handle(), SIGUSR1) == 0;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  JoinVcpus();
  EXPECT_GT(sent, 0u);
  EXPECT_GT(interrupted_.load(), 0u);
  EXPECT_EQ(engine_->Figures().faults.faults, kPages);
}

// The bulk installs beside the guest's faults.
TEST_P(KvmTest, TheGuestReadsWhileTheBulkArrives) {
  StartVcpus();
  engine_->StartBulk();
  JoinVcpus();
  EXPECT_EQ(engine_->WaitComplete(std::chrono::seconds(30)), Engine::Wait::kComplete);
}

}  // namespace
}  // namespace postcopy
