// The engine over real memory, a real userfaultfd and a real page server on loopback.
#include "engine/engine.h"

#include <sys/mount.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "gtest/gtest.h"
#include "tests/engine/memory_fixture.h"
#include "tests/platform/sigbus.h"
#include "tests/transport/breaking_relay.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// Threads of this process whose name begins as the engine's and the transport's do.
size_t CountEngineThreads() {
  size_t count = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::string name;
    std::getline(std::ifstream(task.path() / "comm"), name);
    count += name.rfind("pc-", 0) == 0;
  }
  return count;
}

class EngineTest : public testing::TestWithParam<Backing> {};

INSTANTIATE_TEST_SUITE_P(Backings, EngineTest,
                         testing::Values(Backing::kFile, Backing::kFileAllocated,
                                         Backing::kAnonymous),
                         [](const auto& instance) {
                           switch (instance.param) {
                             case Backing::kFile: return "File";
                             case Backing::kFileAllocated: return "FileAllocated";
                             case Backing::kAnonymous: return "Anonymous";
                           }
                           return "";
                         });

TEST_P(EngineTest, BulkAloneBringsEveryByteAndLeavesNothingBehind) {
  constexpr uint64_t kPages = 3 * 4096;
  Source source(kPages);
  ArmedMemory memory(kPages * kPageBytes, GetParam());
  {
    Engine engine(source.Connect(), memory.device(), {memory.region()});
    ASSERT_TRUE(engine.Start().ok());
    engine.StartBulk();
    ASSERT_EQ(engine.WaitComplete(seconds(20)), Engine::Wait::kComplete);
    // Event reader, who tries again, urgent lane, two bulk lanes, their keeper.
    EXPECT_EQ(CountEngineThreads(), 6u);
    ASSERT_TRUE(engine.Finish().ok());
    const EngineFigures figures = engine.Figures();
    EXPECT_EQ(figures.faults.faults, 0u);
    EXPECT_EQ(figures.data_bytes, kPages / 3 * 2 * kPageBytes);
    EXPECT_EQ(figures.present_bytes, figures.data_bytes);
    EXPECT_EQ(figures.bulk_bytes, kPages / 3 * kPageBytes);
  }
  EXPECT_EQ(CountEngineThreads(), 0u);
  EXPECT_EQ(std::memcmp(memory.memory(), source.content().data(), source.content().size()), 0);
}

class NobodyWaits final : public DemandObserver {
 public:
  void OnDemandServed(PageAddress) override {}
};

// As QEMU does after a memory error: a page in the middle is another mapping.
TEST_P(EngineTest, APageThatIsMappedAgainCostsNoOtherPageOfItsRunItsContent) {
  constexpr uint64_t kPages = 8;
  constexpr uint64_t kRemapped = 3;
  ArmedMemory memory(kPages * kPageBytes, GetParam());
  std::byte* const at = memory.memory() + kRemapped * kPageBytes;
  const bool file = memory.file() >= 0;
  ASSERT_EQ(mmap(at, kPageBytes, PROT_READ | PROT_WRITE,
                 MAP_FIXED | (file ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS), memory.file(),
                 file ? kRemapped * kPageBytes : 0),
            at);
  PageMap map(MemoryLayout{{{"ram", kPages * kPageBytes}}});
  const std::vector<MappedRegion> regions{memory.region()};
  NobodyWaits nobody;
  Installer installer(memory.device(), map, regions, nobody);
  std::vector<std::byte> content(kPages * kPageBytes);
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<std::byte>(1 + i / kPageBytes);
  ASSERT_EQ(installer.Install({0}, {{0}, kPages}, content), Installer::Outcome::kDone);
  for (uint64_t page = 0; page < kPages; ++page) {
    if (page == kRemapped) continue;
    ASSERT_EQ(map.StateOf({{0}, {page}}), PageState::kPresent) << "page " << page;
    EXPECT_EQ(std::memcmp(memory.memory() + page * kPageBytes, content.data() + page * kPageBytes,
                          kPageBytes),
              0)
        << "page " << page;
  }
}

TEST_P(EngineTest, MemoryThatWasUnpluggedMeanwhileDoesNotFailTheEnd) {
  constexpr uint64_t kPages = 64;
  Source source(kPages);
  ArmedMemory memory(kPages * kPageBytes, GetParam());
  Engine engine(source.Connect(), memory.device(), {memory.region()});
  ASSERT_TRUE(engine.Start().ok());
  engine.StartBulk();
  ASSERT_EQ(engine.WaitComplete(seconds(20)), Engine::Wait::kComplete);
  memory.Unplug();
  const auto finished = engine.Finish();
  EXPECT_TRUE(finished.ok()) << finished.error().message;
}

// A tmpfs of its own that holds a part of the guest only, until it grows.
class SmallTmpfs {
 public:
  explicit SmallTmpfs(uint64_t pages) {
    char folder[] = "/tmp/postcopy-ram-XXXXXX";
    folder_ = mkdtemp(folder);
    mounted_ = mount("tmpfs", folder_.c_str(), "tmpfs", 0, Size(pages).c_str()) == 0;
  }
  ~SmallTmpfs() {
    if (mounted_) umount(folder_.c_str());
    rmdir(folder_.c_str());
  }
  bool mounted() const { return mounted_; }
  void Grow(uint64_t pages) {
    ASSERT_EQ(mount("tmpfs", folder_.c_str(), "tmpfs", MS_REMOUNT, Size(pages).c_str()), 0);
  }
  UniqueFd MakeFile(uint64_t size_bytes) {
    UniqueFd file(open(folder_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    EXPECT_EQ(ftruncate(file.get(), static_cast<off_t>(size_bytes)), 0);
    return file;
  }

 private:
  static std::string Size(uint64_t pages) { return "size=" + std::to_string(pages * kPageBytes); }
  std::string folder_;
  bool mounted_ = false;
};

TEST(EngineStallTest, MemoryGoesOnArrivingWhenItsFullFileSystemHasRoomAgain) {
  constexpr uint64_t kPages = 3 * 256;
  SmallTmpfs tmpfs(128);
  if (!tmpfs.mounted()) GTEST_SKIP() << "missing: the right to mount a tmpfs";
  Source source(kPages);
  ArmedMemory memory(kPages * kPageBytes, tmpfs.MakeFile(kPages * kPageBytes));
  Engine engine(source.Connect(), memory.device(), {memory.region()});
  ASSERT_TRUE(engine.Start().ok());
  engine.StartBulk();
  std::optional<Stall> stall;
  while (!(stall = engine.stall()).has_value()) std::this_thread::yield();
  // The first is of content; of pages of zeros the kernel says that no memory can be allocated.
  EXPECT_THAT(stall->cause.message,
              testing::AnyOf(testing::HasSubstr("install guest memory: No space left on device"),
                             testing::HasSubstr("install guest memory: Cannot allocate memory")));
  std::atomic<bool> touched{false};
  std::thread guest([&] {
    // Of random content, and the last that the bulk comes to.
    const uint64_t page = kPages - 3;
    EXPECT_EQ(std::memcmp(memory.memory() + page * kPageBytes,
                          source.content().data() + page * kPageBytes, kPageBytes),
              0);
    touched = true;
  });
  EXPECT_EQ(engine.WaitComplete(milliseconds(300)), Engine::Wait::kTimeout);
  EXPECT_FALSE(engine.failure().has_value());
  EXPECT_FALSE(touched);
  tmpfs.Grow(2 * kPages);
  guest.join();
  ASSERT_EQ(engine.WaitComplete(seconds(20)), Engine::Wait::kComplete);
  ASSERT_TRUE(engine.Finish().ok());
  EXPECT_EQ(std::memcmp(memory.memory(), source.content().data(), source.content().size()), 0);
}

TEST_P(EngineTest, TraceHasTheFaultsAndWhatTheSourceHasDataFor) {
  constexpr uint64_t kPages = 300;
  Source source(kPages);
  ArmedMemory memory(kPages * kPageBytes, GetParam());
  FaultTrace trace;
  Engine engine(source.Connect(), memory.device(), {memory.region()}, {.trace = &trace});
  const TimePoint before = std::chrono::steady_clock::now();
  ASSERT_TRUE(engine.Start().ok());
  for (const uint64_t page : {30, 31, 3}) {
    const std::byte touched = *static_cast<volatile std::byte*>(memory.memory() + page * kPageBytes);
    EXPECT_EQ(touched, source.content()[page * kPageBytes]);
  }
  engine.StartBulk();
  ASSERT_EQ(engine.WaitComplete(seconds(20)), Engine::Wait::kComplete);
  ASSERT_TRUE(engine.Finish().ok());
  std::vector<uint64_t> pages;
  for (const FaultRecord& fault : trace.Faults()) {
    pages.push_back(fault.page.page.value);
    EXPECT_EQ(fault.kind, FaultKind::kAsked);
    EXPECT_GE(fault.read_at, trace.started());
    EXPECT_TRUE(fault.wait.has_value());
  }
  EXPECT_EQ(pages, (std::vector<uint64_t>{30, 31, 3}));
  EXPECT_GE(trace.started(), before);
  uint64_t data_pages = 0;
  for (const FaultTrace::Data& data : trace.data()) data_pages += data.range.count_pages;
  EXPECT_EQ(data_pages, kPages / 3 * 2);
}

TEST_P(EngineTest, PagesTouchedInRandomOrderByEightThreadsAreRight) {
  constexpr uint64_t kPages = 3 * 4096;
  constexpr int kThreads = 8;
  Source source(kPages);
  ArmedMemory memory(kPages * kPageBytes, GetParam());
  Engine engine(source.Connect(), memory.device(), {memory.region()});
  ASSERT_TRUE(engine.Start().ok());
  std::vector<std::thread> guests;
  std::atomic<int> wrong{0};
  for (int i = 0; i < kThreads; ++i) {
    guests.emplace_back([&, i] {
      std::mt19937_64 random(static_cast<uint64_t>(i));
      for (int touch = 0; touch < 1000; ++touch) {
        const uint64_t page = random() % kPages;
        if (std::memcmp(memory.memory() + page * kPageBytes,
                        source.content().data() + page * kPageBytes, kPageBytes) != 0) {
          ++wrong;
        }
        if (i == 0 && touch == 200) engine.StartBulk();
      }
    });
  }
  for (std::thread& guest : guests) guest.join();
  ASSERT_EQ(engine.WaitComplete(seconds(20)), Engine::Wait::kComplete);
  ASSERT_TRUE(engine.Finish().ok());
  EXPECT_EQ(wrong, 0);
  const FaultFigures faults = engine.Figures().faults;
  EXPECT_GT(faults.faults, 100u);
  EXPECT_EQ(faults.served, faults.faults);
  EXPECT_GT(faults.p50_us, 0);
  EXPECT_EQ(std::memcmp(memory.memory(), source.content().data(), source.content().size()), 0);
}

TEST_P(EngineTest, WhatTheGuestWritesAfterItsDiscardIsNeverLost) {
  constexpr uint64_t kPages = 3 * 2048;
  Source source(kPages);
  ArmedMemory memory(kPages * kPageBytes, GetParam());
  Engine engine(source.Connect(), memory.device(), {memory.region()});
  ASSERT_TRUE(engine.Start().ok());
  engine.StartBulk();
  // A balloon's life: give pages up as QEMU does, take them again, write.
  std::mt19937_64 random(7);
  std::vector<uint64_t> own(kPages, 0);
  for (uint64_t round = 1; round <= 3000; ++round) {
    const uint64_t page = random() % kPages;
    std::byte* const at = memory.memory() + page * kPageBytes;
    if (memory.file() >= 0) {
      ASSERT_TRUE(PunchRamFile(memory.file(), page * kPageBytes, kPageBytes).ok());
    }
    ASSERT_EQ(madvise(at, kPageBytes, MADV_DONTNEED), 0);
    // Zero, or what it held before: nothing else.
    std::byte first = at[8];
    if (own[page] == 0) {
      EXPECT_TRUE(first == std::byte{0} || first == source.content()[page * kPageBytes + 8]);
    } else {
      EXPECT_EQ(first, std::byte{0});
    }
    std::memcpy(at, &round, sizeof round);
    own[page] = round;
  }
  ASSERT_EQ(engine.WaitComplete(seconds(20)), Engine::Wait::kComplete);
  ASSERT_TRUE(engine.Finish().ok());
  EXPECT_GE(engine.Figures().discarded_pages, 1000u);
  for (uint64_t page = 0; page < kPages; ++page) {
    const std::byte* at = memory.memory() + page * kPageBytes;
    if (own[page] == 0) {
      ASSERT_EQ(std::memcmp(at, source.content().data() + page * kPageBytes, kPageBytes), 0);
    } else {
      uint64_t found;
      std::memcpy(&found, at, sizeof found);
      ASSERT_EQ(found, own[page]) << "page " << page;
    }
  }
}

TEST_P(EngineTest, WhoGivesMemoryUpWhileTheEngineEndsDoesNotWaitForEver) {
  constexpr uint64_t kPages = 64;
  constexpr int kRounds = 20;
  int stuck = 0;
  for (int round = 0; round < kRounds; ++round) {
    Source source(kPages);
    ArmedMemory memory(kPages * kPageBytes, GetParam());
    std::atomic<bool> stop{false};
    std::atomic<uint64_t> given_up{0};
    std::thread balloon([&] {
      for (uint64_t page = 0; !stop.load(); page = (page + 1) % kPages, ++given_up) {
        madvise(memory.memory() + page * kPageBytes, kPageBytes, MADV_DONTNEED);
      }
    });
    {
      Engine engine(source.Connect(), memory.device(), {memory.region()});
      ASSERT_TRUE(engine.Start().ok());
      engine.StartBulk();
      ASSERT_EQ(engine.WaitComplete(seconds(20)), Engine::Wait::kComplete);
      ASSERT_TRUE(engine.Finish().ok());
    }
    // Only a discard that had begun at the very end waits for the device to be closed.
    const uint64_t before = given_up;
    for (int i = 0; i < 200 && given_up == before; ++i) {
      std::this_thread::sleep_for(milliseconds(1));
    }
    stuck += given_up == before;
    memory.CloseDevice();
    stop = true;
    balloon.join();
  }
  EXPECT_LE(stuck, kRounds / 4);
}

TEST_P(EngineTest, WithoutItsSourceTheRegionsStayRegistered) {
  constexpr uint64_t kPages = 300;
  Source source(kPages);
  ArmedMemory memory(kPages * kPageBytes, GetParam());
  Engine engine(source.Connect(), memory.device(), {memory.region()});
  ASSERT_TRUE(engine.Start().ok());
  source.server().Remove(source.session());
  while (!engine.interruption().has_value()) std::this_thread::yield();
  EXPECT_EQ(engine.WaitComplete(milliseconds(50)), Engine::Wait::kTimeout);
  EXPECT_THAT(engine.interruption()->cause.message, testing::HasSubstr("page server"));
  engine.Stop();
  // Still registered: unregistering works, and only now does the memory read as zero.
  EXPECT_TRUE(memory.device().Unregister(memory.region()).ok());
  EXPECT_EQ(memory.memory()[0], std::byte{0});
}

TEST_P(EngineTest, WhatASourceThatIsGoneNeverSentFailsAndTheRestIsRight) {
  if (!KernelCanPoison()) GTEST_SKIP() << "missing: UFFDIO_POISON (Linux 6.6)";
  constexpr uint64_t kPages = 3 * 1024;
  Source source(kPages);
  ArmedMemory memory(kPages * kPageBytes, GetParam());
  const auto page = [&](uint64_t index) { return memory.memory() + index * kPageBytes; };
  Engine engine(source.Connect(), memory.device(), {memory.region()});
  ASSERT_TRUE(engine.Start().ok());
  for (uint64_t index = 0; index < 30; ++index) {
    ASSERT_EQ(std::memcmp(page(index), source.content().data() + index * kPageBytes, kPageBytes),
              0);
  }
  source.server().Remove(source.session());
  while (!engine.interruption().has_value()) std::this_thread::yield();
  std::atomic<bool> waiter_failed{false};
  std::thread waiter([&] { waiter_failed = RaisesSigbus(page(99)); });
  while (engine.Figures().faults.faults == engine.Figures().faults.served)
    std::this_thread::yield();
  // Gives memory up all the while, as a balloon does: with moments in between, as without them nothing can
  // be poisoned (nor installed).
  std::atomic<bool> discarding{true};
  std::thread balloon([&] {
    for (uint64_t round = 0; discarding; ++round) {
      const uint64_t index = 2000 + round % 1000;
      if (memory.file() >= 0) {
        EXPECT_TRUE(PunchRamFile(memory.file(), index * kPageBytes, kPageBytes).ok());
      }
      EXPECT_EQ(madvise(page(index), kPageBytes, MADV_DONTNEED), 0);
      if (round % 8 == 7) std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  });
  const auto poisoned = engine.PoisonMissing();
  const auto finished = engine.Finish();
  discarding = false;
  balloon.join();
  waiter.join();
  ASSERT_TRUE(poisoned.ok()) << poisoned.error().message;
  ASSERT_TRUE(finished.ok()) << finished.error().message;
  EXPECT_TRUE(waiter_failed);
  EXPECT_GE(*poisoned, 2000u - 30);
  EXPECT_LE(*poisoned, kPages - 30);
  EXPECT_EQ(CountEngineThreads(), 0u);
  for (uint64_t index = 0; index < 2000; ++index) {
    if (index < 30) {
      EXPECT_EQ(std::memcmp(page(index), source.content().data() + index * kPageBytes, kPageBytes),
                0);
    } else {
      EXPECT_TRUE(RaisesSigbus(page(index))) << index;
    }
  }
}

TEST_P(EngineTest, ConnectionsThatBreakAllTheTimeLoseNoByteAndNoWaiter) {
  constexpr uint64_t kPages = 3 * 8192;
  Source source(kPages);
  BreakingRelay relay(source.server().addresses()[0], 7, /*breaks=*/60, /*most_bytes=*/4 << 20);
  ArmedMemory memory(kPages * kPageBytes, GetParam());
  Engine engine(source.Connect(2, {relay.address()}), memory.device(), {memory.region()});
  ASSERT_TRUE(engine.Start().ok());
  engine.StartBulk();
  std::atomic<int> wrong{0};
  std::thread guest([&] {
    std::mt19937_64 random(1);
    for (int touch = 0; touch < 3000; ++touch) {
      const uint64_t page = random() % kPages;
      wrong += std::memcmp(memory.memory() + page * kPageBytes,
                           source.content().data() + page * kPageBytes, kPageBytes) != 0;
    }
  });
  EXPECT_EQ(engine.WaitComplete(seconds(60)), Engine::Wait::kComplete);
  guest.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(engine.Figures().interruptions, 5u);
  ASSERT_TRUE(engine.Finish().ok());
  EXPECT_EQ(std::memcmp(memory.memory(), source.content().data(), source.content().size()), 0);
}

}  // namespace
}  // namespace postcopy
