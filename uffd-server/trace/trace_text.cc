#include "trace/trace_text.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"

namespace postcopy {
namespace {

constexpr std::string_view kFirstLine = "postcopy-trace 1";
constexpr std::string_view kUnknown = "-";
constexpr int64_t kLongestNs = int64_t{1} << 62;  // sums of two stay in range
constexpr std::array kKinds = {FaultKind::kAsked, FaultKind::kJoined, FaultKind::kPresent,
                               FaultKind::kZero};

void AppendNumber(std::string& text, uint64_t number) {
  text += ' ';
  text += std::to_string(number);
}

// ` WORD`: whatever would end a word, or the line, stands there as %XX.
void AppendWord(std::string& text, std::string_view word) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  text += ' ';
  for (const char each : word) {
    const auto byte = static_cast<unsigned char>(each);
    if (byte > 0x20 && byte < 0x7f && byte != '%') {
      text += each;
    } else {
      text += '%';
      text += kDigits[byte >> 4];
      text += kDigits[byte & 15];
    }
  }
}

std::optional<int> HexDigit(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  return std::nullopt;
}

// Takes words off one line; the first that is not as it must be is kept as the complaint.
class Line {
 public:
  explicit Line(std::string_view text) : rest_(text) {}

  std::string_view Word() {
    if (done_) {
      Complain("too few words");
      return {};
    }
    const size_t space = rest_.find(' ');
    const std::string_view word = rest_.substr(0, space);
    done_ = space == std::string_view::npos;
    rest_.remove_prefix(done_ ? rest_.size() : space + 1);
    if (word.empty()) Complain("an empty word");
    return word;
  }

  std::string Name(std::string_view what) {
    const std::string_view word = Word();
    std::string name;
    for (size_t i = 0; i < word.size(); ++i) {
      if (word[i] != '%') {
        name += word[i];
        continue;
      }
      const auto high = i + 2 < word.size() ? HexDigit(word[i + 1]) : std::nullopt;
      const auto low = high.has_value() ? HexDigit(word[i + 2]) : std::nullopt;
      if (!low.has_value()) {
        Complain(absl::StrCat(std::string(what), ": no two hexadecimal digits behind %"));
        return {};
      }
      name += static_cast<char>(*high * 16 + *low);
      i += 2;
    }
    if (name.size() > kMaxRegionNameBytes)
      Complain(absl::StrCat(std::string(what), " is too long"));
    return name;
  }

  uint64_t Number(std::string_view what, uint64_t most) { return ToNumber(Word(), what, most); }

  std::chrono::nanoseconds Time(std::string_view what) {
    return std::chrono::nanoseconds(static_cast<int64_t>(Number(what, kLongestNs)));
  }

  std::optional<std::chrono::nanoseconds> TimeIfKnown(std::string_view what) {
    const std::string_view word = Word();
    if (word == kUnknown) return std::nullopt;
    return std::chrono::nanoseconds(static_cast<int64_t>(ToNumber(word, what, kLongestNs)));
  }

  void Complain(const std::string& complaint) {
    if (complaint_.empty()) complaint_ = complaint;
  }
  // Empty: every word was as it must be, and none is left.
  const std::string& End() {
    if (!done_) Complain("too many words");
    return complaint_;
  }
  bool ok() const { return complaint_.empty(); }

 private:
  uint64_t ToNumber(std::string_view word, std::string_view what, uint64_t most) {
    uint64_t number = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number);
    if (error != std::errc() || end != word.data() + word.size() || number > most) {
      Complain(absl::StrCat(std::string(what), " is not a number from 0 to ", most));
      return 0;
    }
    return number;
  }

  std::string_view rest_;
  bool done_ = false;
  std::string complaint_;
};

// What the lines have come to.
class Reader {
 public:
  // Empty: the line belongs there.
  std::string Take(std::string_view text) {
    Line line(text);
    const std::string_view keyword = line.Word();
    if (ended_) return "behind the end";
    if (keyword == "fault") {
      TakeFault(line);
    } else if (keyword == "data") {
      TakeData(line);
    } else if (keyword == "block") {
      TakeBlock(line);
    } else if (keyword == "end") {
      ended_ = true;
    } else if (keyword == "vm") {
      Once(keyword, line);
      trace_.vm = line.Name("the VM's name");
    } else if (keyword == "session") {
      Once(keyword, line);
      trace_.session = line.Name("the session");
    } else if (keyword == "resume") {
      Once(keyword, line);
      trace_.resumed = line.Time("the time");
    } else if (keyword == "left-out") {
      Once(keyword, line);
      trace_.left_out = line.Number("the count", ~uint64_t{0});
    } else {
      return "not one of vm, session, block, data, resume, left-out, fault, end";
    }
    return line.End();
  }

  // Empty: everything was there.
  std::string Missing() const {
    if (!ended_) return "the file ends without end: it is not whole";
    for (const char* keyword : {"vm", "session"}) {
      if (seen_.count(keyword) == 0) return absl::StrCat("there is no line ", keyword);
    }
    return trace_.blocks.empty() ? "there is no line block" : "";
  }

  Trace Finish() {
    std::stable_sort(trace_.faults.begin(), trace_.faults.end(),
                     [](const Trace::Fault& a, const Trace::Fault& b) { return a.time < b.time; });
    return std::move(trace_);
  }

 private:
  void Once(std::string_view keyword, Line& line) {
    if (!seen_.emplace(keyword).second) line.Complain("there was such a line before");
  }

  void TakeBlock(Line& line) {
    Trace::Block block;
    block.pages = line.Number("the number of pages", kMaxRegionBytes / kPageBytes);
    block.page_bytes = line.Number("the size of a page", kMaxHugePageBytes);
    block.name = line.Name("the block's name");
    if (block.pages == 0) line.Complain("a block without pages");
    if (block.page_bytes == 0 || block.page_bytes % kPageBytes != 0) {
      line.Complain(absl::StrCat("the size of a page is no multiple of ", kPageBytes));
    }
    if (trace_.blocks.size() == kMaxRegions) line.Complain("too many blocks");
    if (line.ok()) trace_.blocks.push_back(std::move(block));
  }

  // A block that a line before has described.
  RegionId TakeBlockNumber(Line& line) {
    if (trace_.blocks.empty()) {
      line.Complain("no block was described before");
      return {};
    }
    return {static_cast<uint32_t>(line.Number("the block", trace_.blocks.size() - 1))};
  }

  void TakeData(Line& line) {
    const RegionId block = TakeBlockNumber(line);
    if (!line.ok()) return;
    const uint64_t pages = trace_.blocks[block.value].pages;
    const uint64_t first = line.Number("the first page", pages - 1);
    const uint64_t count = line.Number("the number of pages", pages - first);
    if (line.ok()) trace_.data.push_back({block, {{first}, count}});
  }

  void TakeFault(Line& line) {
    Trace::Fault fault;
    fault.time = line.Time("the time");
    fault.page.region = TakeBlockNumber(line);
    if (!line.ok()) return;
    fault.page.page.value =
        line.Number("the page", trace_.blocks[fault.page.region.value].pages - 1);
    const std::string_view word = line.Word();
    const auto kind = std::find_if(kKinds.begin(), kKinds.end(),
                                   [&](FaultKind each) { return Name(each) == word; });
    if (kind == kKinds.end()) {
      line.Complain("the kind is not one of asked, joined, present, zero");
      return;
    }
    fault.kind = *kind;
    fault.wait = line.TimeIfKnown("the wait");
    if (line.ok()) trace_.faults.push_back(fault);
  }

  Trace trace_;
  std::set<std::string, std::less<>> seen_;
  bool ended_ = false;
};

absl::Status BadLine(uint64_t number, const std::string& complaint) {
  return absl::InvalidArgumentError(absl::StrCat("line ", number, ": ", complaint));
}

}  // namespace

std::string_view Name(FaultKind kind) {
  switch (kind) {
    case FaultKind::kAsked:
      return "asked";
    case FaultKind::kJoined:
      return "joined";
    case FaultKind::kPresent:
      return "present";
    case FaultKind::kZero:
      return "zero";
  }
  return "";
}

std::string FormatTrace(const Trace& trace) {
  constexpr size_t kUsualFaultBytes = 48;
  std::string text;
  text.reserve(trace.faults.size() * kUsualFaultBytes);
  text += kFirstLine;
  text += "\nvm";
  AppendWord(text, trace.vm);
  text += "\nsession";
  AppendWord(text, trace.session);
  for (const Trace::Block& block : trace.blocks) {
    text += "\nblock";
    AppendNumber(text, block.pages);
    AppendNumber(text, block.page_bytes);
    AppendWord(text, block.name);
  }
  for (const Trace::Data& data : trace.data) {
    text += "\ndata";
    AppendNumber(text, data.block.value);
    AppendNumber(text, data.range.first.value);
    AppendNumber(text, data.range.count_pages);
  }
  if (trace.resumed.has_value()) {
    text += "\nresume";
    AppendNumber(text, static_cast<uint64_t>(trace.resumed->count()));
  }
  text += "\nleft-out";
  AppendNumber(text, trace.left_out);
  for (const Trace::Fault& fault : trace.faults) {
    text += "\nfault";
    AppendNumber(text, static_cast<uint64_t>(fault.time.count()));
    AppendNumber(text, fault.page.region.value);
    AppendNumber(text, fault.page.page.value);
    text += ' ';
    text += Name(fault.kind);
    if (fault.wait.has_value()) {
      AppendNumber(text, static_cast<uint64_t>(fault.wait->count()));
    } else {
      text += ' ';
      text += kUnknown;
    }
  }
  text += "\nend\n";
  return text;
}

absl::StatusOr<Trace> ParseTrace(std::string_view text) {
  Reader reader;
  uint64_t number = 0;
  while (!text.empty()) {
    ++number;
    const size_t newline = text.find('\n');
    if (newline == std::string_view::npos)
      return BadLine(number, "it does not end: the file is not whole");
    const std::string_view line = text.substr(0, newline);
    text.remove_prefix(newline + 1);
    if (number == 1) {
      if (line != kFirstLine) return BadLine(1, absl::StrCat("not ", std::string(kFirstLine)));
      continue;
    }
    const std::string complaint = reader.Take(line);
    if (!complaint.empty()) return BadLine(number, complaint);
  }
  const std::string missing = reader.Missing();
  if (!missing.empty()) return BadLine(number + 1, missing);
  return reader.Finish();
}

}  // namespace postcopy
