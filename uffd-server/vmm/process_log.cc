#include "vmm/process_log.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace postcopy {
namespace {

constexpr std::streamoff kMaxReadBytes = 16 << 10;
constexpr size_t kMaxLines = 4;
constexpr size_t kMaxLineBytes = 300;

std::streamoff SizeOf(std::ifstream& file) {
  file.clear();
  file.seekg(0, std::ios::end);
  return std::max<std::streamoff>(file.tellg(), 0);
}

std::string Printable(std::string line) {
  if (line.size() > kMaxLineBytes) line = line.substr(0, kMaxLineBytes) + "...";
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = ' ';
  }
  return line;
}

}  // namespace

ProcessLog::ProcessLog(int pid) {
  const std::filesystem::path link = absl::StrFormat("/proc/%d/fd/2", pid);
  std::error_code error;
  const std::filesystem::path target = std::filesystem::read_symlink(link, error);
  if (error) {
    place_ = absl::StrFormat("a place that is not known (%s: %s)", link.string(), error.message());
    return;
  }
  place_ = Printable(target.string());
  if (!std::filesystem::is_regular_file(link, error)) return;
  file_.open(link, std::ios::binary);
  Mark();
}

void ProcessLog::Mark() {
  if (file_.is_open()) mark_ = SizeOf(file_);
}

std::string ProcessLog::Words() {
  if (place_.empty()) return "its stderr is not known";
  if (!file_.is_open()) return "its stderr has more: it goes to " + place_;
  const std::streamoff size = SizeOf(file_);
  // A log that was emptied meanwhile begins again.
  const std::streamoff begin = std::max(mark_ > size ? 0 : mark_, size - kMaxReadBytes);
  std::string text(static_cast<size_t>(size - begin), '\0');
  file_.seekg(begin);
  file_.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(std::max<std::streamsize>(file_.gcount(), 0)));
  std::vector<std::string> lines = absl::StrSplit(text, absl::ByAnyChar("\r\n"), absl::SkipEmpty());
  if (lines.empty()) return "it has written nothing to its stderr, " + place_;
  if (lines.size() > kMaxLines) lines.erase(lines.begin(), lines.end() - kMaxLines);
  for (std::string& line : lines) line = Printable(std::move(line));
  return absl::StrFormat("its stderr says \"%s\"", absl::StrJoin(lines, " | "));
}

}  // namespace postcopy
