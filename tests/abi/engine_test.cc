// The engine half of the C ABI and its C++ wrapper: a page server on loopback, memory of this process.
#include <postcopy/postcopy.h>
#include <postcopy/postcopy.hpp>

#include <cerrno>

#include "gtest/gtest.h"
#include "tests/engine/memory_fixture.h"

namespace {

using postcopy::kPageBytes;

constexpr uint64_t kPages = 3 * 512;

struct Request {
  explicit Request(postcopy::Source& source, const postcopy_region& wanted, int userfault)
      : address(source.server().addresses().front()), region(wanted) {
    options.size = sizeof options;
    options.addresses = &raw_address;
    options.address_count = 1;
    std::memcpy(options.session, source.session().bytes.data(), sizeof options.session);
    options.regions = &region;
    options.region_count = 1;
    options.userfault = userfault;
  }
  std::string address;
  const char* raw_address = address.c_str();
  postcopy_region region;
  postcopy_engine_options options{};
};

TEST(AbiEngineTest, FetchesAnonymousMemoryOfThisProcess) {
  postcopy::Source source(kPages);
  void* const memory = mmap(nullptr, kPages * kPageBytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  std::memset(memory, 0x5a, kPages * kPageBytes);  // is emptied first
  Request request(source, {"ram", memory, kPages * kPageBytes, -1, 0}, -1);
  std::error_code error;
  postcopy::Fetching fetching = postcopy::Fetching::Start(request.options, error);
  ASSERT_FALSE(error) << error.message();
  EXPECT_EQ(std::memcmp(memory, source.content().data(), source.content().size()), 0);
  EXPECT_FALSE(fetching.Wait(std::chrono::seconds(20)));
  EXPECT_FALSE(fetching.Wait(std::chrono::seconds(0))) << "asking again is harmless";
  const postcopy_figures figures = fetching.Figures();
  EXPECT_EQ(figures.ram_bytes, kPages * kPageBytes);
  EXPECT_EQ(figures.data_bytes, kPages / 3 * 2 * kPageBytes);
  EXPECT_EQ(figures.present_bytes, figures.data_bytes);
  munmap(memory, kPages * kPageBytes);
}

TEST(AbiEngineTest, FetchesASharedFileOverAUserfaultfdThatItWasGiven) {
  postcopy::Source source(kPages);
  const postcopy::UniqueFd file = postcopy::MakeRamFile(kPages * kPageBytes);
  void* const memory =
      mmap(nullptr, kPages * kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  const auto userfault = postcopy::CreateUserfault(-1);
  ASSERT_TRUE(userfault.ok());
  ASSERT_TRUE(postcopy::RegisterFaults(userfault->get(), reinterpret_cast<uintptr_t>(memory),
                                       kPages * kPageBytes,
                                       postcopy::FaultMode::kMissingAndMinor)
                  .ok());
  Request request(source, {"ram", memory, kPages * kPageBytes, file.get(), 0}, userfault->get());
  std::error_code error;
  postcopy::Fetching fetching = postcopy::Fetching::Start(request.options, error);
  ASSERT_FALSE(error) << error.message();
  EXPECT_FALSE(fetching.Wait(std::chrono::seconds(20)));
  EXPECT_EQ(std::memcmp(memory, source.content().data(), source.content().size()), 0);
  munmap(memory, kPages * kPageBytes);
}

// A caller that was compiled before fields were added, and one for which they were added later.
TEST(AbiEngineTest, CallersOfOtherReleasesAreUnderstood) {
  postcopy::Source source(kPages);
  void* const memory = mmap(nullptr, kPages * kPageBytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  Request request(source, {"ram", memory, kPages * kPageBytes, -1, 0}, -1);
  struct {
    postcopy_engine_options options;
    uint64_t of_a_later_release;
  } newer{request.options, ~uint64_t{0}};
  newer.options.size = sizeof newer;
  for (const size_t first : {size_t{64}, sizeof newer}) {
    newer.options.size = first;
    postcopy_engine* engine = nullptr;
    ASSERT_EQ(postcopy_engine_start(&newer.options, &engine), 0) << first;
    ASSERT_EQ(postcopy_engine_wait(engine, 10000), 0);
    struct {
      postcopy_figures figures;
      uint64_t of_a_later_release;
    } figures;
    std::memset(&figures, 0x5a, sizeof figures);
    figures.figures.size = 64;
    ASSERT_EQ(postcopy_engine_get_figures(engine, &figures.figures), 0);
    EXPECT_EQ(figures.figures.size, 64u);
    EXPECT_EQ(figures.figures.ram_bytes, kPages * kPageBytes);
    const auto* const bytes = reinterpret_cast<const unsigned char*>(&figures);
    for (size_t i = 64; i < sizeof figures; ++i) EXPECT_EQ(bytes[i], 0x5a) << "not the callee's";
    figures.figures.size = sizeof figures;
    ASSERT_EQ(postcopy_engine_get_figures(engine, &figures.figures), 0);
    EXPECT_EQ(figures.of_a_later_release, 0u);
    figures.figures.size = 63;
    EXPECT_EQ(postcopy_engine_get_figures(engine, &figures.figures), -EINVAL);
    postcopy_engine_free(engine);
  }
  newer.options.size = 63;
  postcopy_engine* engine = nullptr;
  EXPECT_EQ(postcopy_engine_start(&newer.options, &engine), -EINVAL);
  munmap(memory, kPages * kPageBytes);
}

TEST(AbiEngineTest, RegionsThatThePageServerDoesNotHaveAreRefused) {
  postcopy::Source source(kPages);
  void* const memory = mmap(nullptr, kPages * kPageBytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (const postcopy_region& region :
       {postcopy_region{"rom", memory, kPages * kPageBytes, -1, 0},
        postcopy_region{"ram", memory, kPageBytes, -1, 0},
        postcopy_region{nullptr, memory, kPages * kPageBytes, -1, 0}}) {
    Request request(source, region, -1);
    postcopy_engine* engine = nullptr;
    EXPECT_EQ(postcopy_engine_start(&request.options, &engine), -EINVAL);
    EXPECT_EQ(engine, nullptr);
  }
  munmap(memory, kPages * kPageBytes);
}

TEST(AbiEngineTest, AnUnknownSessionAndAnAbsentServerAreToldApart) {
  postcopy::Source source(kPages);
  char page[1];
  Request request(source, {"ram", page, kPages * kPageBytes, -1, 0}, -1);
  request.options.session[15] = 1;
  postcopy_engine* engine = nullptr;
  EXPECT_EQ(postcopy_engine_start(&request.options, &engine), -EPROTO);
  const char* nobody = "127.0.0.1:1";
  request.options.addresses = &nobody;
  EXPECT_EQ(postcopy_engine_start(&request.options, &engine), -ECONNREFUSED);
  request.options.size = 1;
  EXPECT_EQ(postcopy_engine_start(&request.options, &engine), -EINVAL);
}

TEST(AbiEngineTest, WhileThePageServerRefusesItSaysSoAndGoesOn) {
  postcopy::Source source(kPages, /*seed=*/1, /*frozen=*/false);
  void* const plain = mmap(nullptr, kPages * kPageBytes, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  Request request(source, {"ram", plain, kPages * kPageBytes, -1, 0}, -1);
  postcopy_engine* engine = nullptr;
  ASSERT_EQ(postcopy_engine_start(&request.options, &engine), 0);
  do {
    EXPECT_EQ(postcopy_engine_wait(engine, 20), -ETIMEDOUT);
  } while (std::string(postcopy_engine_error(engine)).empty());
  source.server().Freeze(source.session());
  EXPECT_EQ(postcopy_engine_wait(engine, 10000), 0);
  EXPECT_STREQ(postcopy_engine_error(engine), "");
  postcopy_engine_free(engine);
  munmap(plain, kPages * kPageBytes);
}

}  // namespace
