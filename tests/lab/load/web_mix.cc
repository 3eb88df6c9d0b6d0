#include "web_mix.h"

namespace postcopy_lab {
namespace {

using enum PageType::Kind;

constexpr PageType kBanking[] = {
    {"login", 8, {{{1, .32}, {3, .32}, {12, .08}, {14, .08}}}},
    {"account_summary", 14, {{{2, .56}, {10, .08}, {8, .08}, {14, .08}}}},
    {"check_detail", 18, {{{15, 1}}}},
    {"bill_pay", 14, {{{4, .08}, {6, .48}, {7, .16}, {14, .08}}}},
    {"add_payee", 13, {{{5, .72}, {14, .08}}}},
    {"payee_info", 15, {{{3, .72}, {14, .08}}}},
    {"quick_pay", 17, {{{3, .72}, {14, .08}}}},
    {"bill_pay_status", 13, {{{3, .72}, {14, .08}}}},
    {"change_profile", 14, {{{9, .72}, {14, .08}}}},
    {"post_profile", 12, {{{1, .72}, {14, .08}}}},
    {"request_checks", 19, {{{11, .72}, {14, .08}}}},
    {"post_check_order", 13, {{{1, .72}, {14, .08}}}},
    {"request_transfer", 13, {{{13, .72}, {14, .08}}}},
    {"post_transfer", 13, {{{1, .72}, {14, .08}}}},
    {"logout", 8, {}},
    {"check_image_front", 0, {{{16, 1}}}, kImage},
    {"check_image_back", 0, {{{1, .72}, {14, .08}}}, kImage},
};

// Where the published transitions do not give the published shares of pages (customize_1, login,
// billing, confirm) these do.
constexpr PageType kEcommerce[] = {
    {"index", 25, {{{0, .2}, {1, .15}, {2, .6}}}},
    {"search", 7, {{{0, .05}, {1, .7}, {2, .2}}}},
    {"browse", 25, {{{0, .1}, {2, .1}, {3, .75}}}},
    {"browse_product_line", 12, {{{0, .05}, {2, .1}, {4, .8}}}},
    {"product_detail", 10, {{{0, .05}, {2, .05}, {3, .15}, {5, .7}}}},
    {"customize_1", 9, {{{5, .616}, {6, .334}}}},
    {"customize_2", 9, {{{5, .1}, {6, .3}, {7, .55}}}},
    {"customize_3", 9, {{{6, .1}, {7, .2}, {8, .65}}}},
    {"cart", 40, {{{8, .25}, {9, .7}}}},
    {"login", 21, {{{9, .02}, {10, .94}}}},
    {"shipping", 5, {{{11, .95}}}},
    {"billing", 5, {{{12, .75}}}},
    {"confirm", 13, {}},
};

constexpr PageType kSupport[] = {
    {"home", 10, {{{1, .25}, {2, .75}}}},
    {"search", 9, {{{3, .5}, {1, .5}}}},
    {"catalog", 8, {{{3, .75}, {1, .25}}}},
    {"product", 28, {{{4, .8}, {2, .2}}}},
    {"file_catalog", 25, {{{5, .6}, {3, .4}}}},
    {"file", 25, {{{6, .5}, {4, .2}, {3, .05}, {2, .05}, {1, .1}, {0, .1}}}},
    {"download", 0, {}, kDownload},
};

constexpr WebMix kMixes[] = {
    {LAB_WEB_BANKING, "banking", kBanking},
    {LAB_WEB_ECOMMERCE, "ecommerce", kEcommerce},
    {LAB_WEB_SUPPORT, "support", kSupport},
};

}  // namespace

const WebMix* WebMixOf(std::string_view name) {
  for (const WebMix& mix : kMixes) {
    if (mix.name == name) return &mix;
  }
  return nullptr;
}

std::optional<int> PageAfter(const WebMix& mix, int page, double uniform) {
  for (const Step& step : mix.pages[static_cast<size_t>(page)].next) {
    if (uniform < step.probability) return step.page;
    uniform -= step.probability;
  }
  return std::nullopt;
}

}  // namespace postcopy_lab
