// The three mixes of pages: which there are, what each embeds, and which follows which.
//
// Pure tables after SPECweb2005's; where each number is from says docs/loads.md. How large pages
// are and what is in them says web_content.h.
#ifndef POSTCOPY_LAB_LOAD_WEB_MIX_H_
#define POSTCOPY_LAB_LOAD_WEB_MIX_H_

#include <array>
#include <optional>
#include <span>
#include <string_view>

#include "web_content.h"

namespace postcopy_lab {

struct Step {
  int page = 0;
  double probability = 0;
};

struct PageType {
  enum class Kind {
    kPage,      // made by the guest's web program, with embedded files
    kImage,     // made by it too, asked for at once after the page before, without embedded files
    kDownload,  // a large file
  };
  std::string_view name;
  int embedded_files = 0;
  std::array<Step, 6> next{};  // what is left to 1 ends the session
  Kind kind = Kind::kPage;
};

struct WebMix {
  lab_web_mix number;
  std::string_view name;
  std::span<const PageType> pages;  // a session begins with the first
};

// "banking", "ecommerce" or "support"; nullptr if it is none of them. Valid for ever.
const WebMix* WebMixOf(std::string_view name);

// The page that follows page number `page` when the dice say `uniform`, in [0, 1); nothing: the
// session has ended.
std::optional<int> PageAfter(const WebMix& mix, int page, double uniform);

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_WEB_MIX_H_
