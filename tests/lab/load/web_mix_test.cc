#include "tests/lab/load/web_mix.h"

#include <gmock/gmock.h>

#include <vector>

namespace postcopy_lab {
namespace {

// How often each page is asked for by very many sessions, in percent.
std::vector<double> Shares(const WebMix& mix) {
  std::vector<double> visits(mix.pages.size());
  for (int pass = 0; pass < 1000; ++pass) {
    std::vector<double> next(mix.pages.size());
    next[0] = 1;
    for (size_t page = 0; page < visits.size(); ++page) {
      for (const Step& step : mix.pages[page].next) {
        next[static_cast<size_t>(step.page)] += visits[page] * step.probability;
      }
    }
    visits = next;
  }
  double sum = 0;
  for (const double visit : visits) sum += visit;
  for (double& visit : visits) visit *= 100 / sum;
  return visits;
}

void ExpectShares(const char* mix, const std::vector<double>& published) {
  EXPECT_THAT(Shares(*WebMixOf(mix)), testing::Pointwise(testing::DoubleNear(0.06), published));
}

// The shares that SPECweb2005 expects of its harness; of check images it tells only the
// sum, 16.894.
TEST(WebMix, BankingPagesHaveTheirPublishedShares) {
  ExpectShares("banking", {21.5280, 15.1146, 8.4470, 13.8908, 1.1163, 0.8043, 6.6746, 2.2281,
                           1.2165, 0.8761, 1.2155, 0.8784, 1.7146, 1.2415, 6.1597, 8.4470, 8.4470});
}

TEST(WebMix, EcommercePagesHaveTheirPublishedShares) {
  ExpectShares("ecommerce", {13.0834, 6.5461, 11.7532, 10.0270, 8.0178, 16.9320, 8.9483, 6.1558,
                             5.2968, 3.7778, 3.5525, 3.3743, 2.5350});
}

TEST(WebMix, SupportPagesHaveTheirPublishedShares) {
  ExpectShares("support", {8.1072, 12.6125, 11.7088, 24.7746, 22.5237, 13.5135, 6.7597});
}

TEST(WebMix, EveryPageButADownloadHasASize) {
  for (const char* name : {"banking", "ecommerce", "support"}) {
    const WebMix& mix = *WebMixOf(name);
    for (uint32_t page = 0; page < mix.pages.size(); ++page) {
      const bool download = mix.pages[page].kind == PageType::Kind::kDownload;
      EXPECT_EQ(lab_web_page_bytes(mix.number, page) == 0, download) << name << " " << page;
      EXPECT_LE(lab_web_page_bytes(mix.number, page), LAB_WEB_MAX_PAGE_BYTES);
    }
    EXPECT_EQ(lab_web_page_bytes(mix.number, static_cast<uint32_t>(mix.pages.size())), 0u);
  }
}

TEST(WebMix, WhatIsLeftToOneEndsTheSession) {
  const WebMix& banking = *WebMixOf("banking");
  EXPECT_EQ(PageAfter(banking, 0, 0.0), 1);
  EXPECT_EQ(PageAfter(banking, 0, 0.33), 3);
  EXPECT_EQ(PageAfter(banking, 0, 0.81), std::nullopt);
  EXPECT_EQ(PageAfter(banking, 14, 0.0), std::nullopt);
  EXPECT_EQ(PageAfter(banking, 2, 0.999999), 15);
}

TEST(WebMix, UnknownMixesAreNone) { EXPECT_EQ(WebMixOf("bank"), nullptr); }

}  // namespace
}  // namespace postcopy_lab
