#include "server/ownership_record.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <limits>
#include <nlohmann/json.hpp>

namespace postcopy {
namespace {

using Json = nlohmann::json;

struct MarkName {
  OwnershipMark mark;
  std::string_view name;
  // Whose mark it may be.
  bool source;
  bool destination;
};
constexpr std::array kMarkNames = {
    MarkName{OwnershipMark::kPrepared, "prepared", true, false},
    MarkName{OwnershipMark::kOffered, "offered", false, true},
    MarkName{OwnershipMark::kHandedOver, "handed-over", true, false},
    MarkName{OwnershipMark::kRolledBack, "rolled-back", true, false},
    MarkName{OwnershipMark::kOwner, "owner", false, true},
    MarkName{OwnershipMark::kNever, "never", false, true},
    MarkName{OwnershipMark::kArrived, "arrived", false, true},
    MarkName{OwnershipMark::kIncomplete, "incomplete", false, true},
    MarkName{OwnershipMark::kCommitted, "committed", true, true},
};

const MarkName* FindMark(std::string_view name) {
  const auto found = std::find_if(kMarkNames.begin(), kMarkNames.end(),
                                  [&](const MarkName& known) { return known.name == name; });
  return found == kMarkNames.end() ? nullptr : &*found;
}

bool IsOf(const MarkName& mark, SessionRole role) {
  return role == SessionRole::kSource ? mark.source : mark.destination;
}

// --- lines with a checksum -----------------------------------------------------------------------

constexpr std::string_view kLineStart = R"({"crc":")";
constexpr size_t kDigits = 8;
constexpr std::string_view kAfterDigits = "\",";

// CRC-32C, a byte at a time.
constexpr std::array<uint32_t, 256> kChecksumSteps = [] {
  std::array<uint32_t, 256> steps{};
  for (uint32_t byte = 0; byte < steps.size(); ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0);
    steps[byte] = crc;
  }
  return steps;
}();

uint32_t Checksum(std::string_view bytes) {
  uint32_t crc = ~uint32_t{0};
  for (const char byte : bytes) {
    crc = (crc >> 8) ^ kChecksumSteps[(crc ^ static_cast<unsigned char>(byte)) & 0xff];
  }
  return ~crc;
}

std::string DigitsOf(std::string line) {
  line.replace(kLineStart.size(), kDigits, kDigits, '0');
  std::array<char, kDigits + 1> digits{};
  std::snprintf(digits.data(), digits.size(), "%08x", Checksum(line));
  return digits.data();
}

// `members` as a line that ends where the next one begins; `bytes` long.
std::string MakeLine(const std::string& members, size_t bytes) {
  std::string line(kLineStart);
  line.append(kDigits, '0').append(kAfterDigits).append(members, 1);
  line.resize(bytes - 1, ' ');
  line += '\n';
  line.replace(kLineStart.size(), kDigits, DigitsOf(line));
  return line;
}

size_t LineBytes(const std::string& members) {
  return kLineStart.size() + kDigits + kAfterDigits.size() + members.size();
}

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::optional<Json> ReadLine(std::string_view line) {
  if (line.size() < kLineStart.size() + kDigits || line.substr(0, kLineStart.size()) != kLineStart ||
      line.substr(kLineStart.size(), kDigits) != DigitsOf(std::string(line))) {
    return std::nullopt;
  }
  Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  return json.is_object() ? std::optional(std::move(json)) : std::nullopt;
}

// --- members -------------------------------------------------------------------------------------

// A file's path is bytes, a JSON text is characters.
std::string EscapePath(std::string_view path) {
  std::string text;
  for (const char byte : path) {
    const auto code = static_cast<unsigned char>(byte);
    if (code > 0x20 && code < 0x7f && byte != '%') {
      text += byte;
      continue;
    }
    std::array<char, 4> escaped{};
    std::snprintf(escaped.data(), escaped.size(), "%%%02x", code);
    text += escaped.data();
  }
  return text;
}

std::string UnescapePath(std::string_view text) {
  const auto digit = [](char at) { return at <= '9' ? at - '0' : at - 'a' + 10; };
  std::string path;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%' || i + 2 >= text.size()) {
      path += text[i];
      continue;
    }
    path += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
    i += 2;
  }
  return path;
}

std::string TextAt(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_string() ? found->get<std::string>() : "";
}

uint64_t NumberAt(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number_unsigned() ? found->get<uint64_t>() : 0;
}

bool FlagAt(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_boolean() && found->get<bool>();
}

std::string HeadOf(const OwnershipRecord& record, uint64_t sequence) {
  return Dump({{"allocated", record.allocated_bytes},
               {"mark", NameOf(record.mark)},
               {"ran-there", record.ran_there},
               {"role", NameOf(record.role)},
               {"run", record.run},
               {"sequence", sequence},
               {"session", record.session.ToString()},
               {"to-resume", record.to_resume}});
}

std::string DetailsOf(const OwnershipRecord& record) {
  Json json = {{"peer", record.peer},
               {"role", NameOf(record.role)},
               {"session", record.session.ToString()},
               {"vm", record.vm}};
  if (record.keep_source) json["keep-source"] = true;
  for (const std::string& backend : record.emptied_at_end) json["emptied-at-end"].push_back(backend);
  if (record.vmm.pid != 0) {
    json["vmm"] = {{"boot", record.vmm.boot_id},
                   {"pid", record.vmm.pid},
                   {"started", record.vmm.started_ticks}};
  }
  for (const RecordedBlock& block : record.memory) {
    json["memory"].push_back({{"device", block.file_id.device},
                              {"inode", block.file_id.inode},
                              {"name", block.name},
                              {"offset", block.file_offset},
                              {"path", EscapePath(block.path)},
                              {"size", block.size_bytes}});
  }
  return Dump(json);
}

// Both kinds of line name the session and the role.
std::optional<OwnershipRecord> WhoseLine(const Json& json) {
  const auto session = SessionId::Parse(TextAt(json, "session"));
  const std::string role = TextAt(json, "role");
  const bool source = role == NameOf(SessionRole::kSource);
  if (!session.has_value() || (!source && role != NameOf(SessionRole::kDestination))) {
    return std::nullopt;
  }
  OwnershipRecord record;
  record.session = *session;
  record.role = source ? SessionRole::kSource : SessionRole::kDestination;
  return record;
}

std::optional<OwnershipRecord> ReadDetails(const Json& json) {
  auto record = WhoseLine(json);
  if (!record.has_value()) return std::nullopt;
  record->vm = TextAt(json, "vm");
  record->peer = TextAt(json, "peer");
  record->keep_source = FlagAt(json, "keep-source");
  if (const auto vmm = json.find("vmm"); vmm != json.end()) {
    const uint64_t pid = NumberAt(*vmm, "pid");
    if (pid < 1 || pid > static_cast<uint64_t>(std::numeric_limits<int>::max())) return std::nullopt;
    record->vmm = {static_cast<int>(pid), NumberAt(*vmm, "started"), TextAt(*vmm, "boot")};
  }
  if (const auto emptied = json.find("emptied-at-end"); emptied != json.end()) {
    if (!emptied->is_array()) return std::nullopt;
    for (const Json& backend : *emptied) {
      if (!backend.is_string()) return std::nullopt;
      record->emptied_at_end.push_back(backend.get<std::string>());
    }
  }
  if (const auto memory = json.find("memory"); memory != json.end()) {
    if (!memory->is_array()) return std::nullopt;
    for (const Json& block : *memory) {
      if (!block.is_object()) return std::nullopt;
      record->memory.push_back({TextAt(block, "name"), UnescapePath(TextAt(block, "path")),
                                {NumberAt(block, "device"), NumberAt(block, "inode")},
                                NumberAt(block, "offset"), NumberAt(block, "size")});
    }
  }
  return record;
}

struct Head {
  OwnershipRecord record;
  uint64_t sequence = 0;
};

std::optional<Head> ReadHead(const Json& json) {
  auto record = WhoseLine(json);
  const MarkName* const mark = FindMark(TextAt(json, "mark"));
  const auto run = json.find("run");
  if (!record.has_value() || mark == nullptr || !IsOf(*mark, record->role) || run == json.end() ||
      !run->is_boolean()) {
    return std::nullopt;
  }
  record->mark = mark->mark;
  record->run = run->get<bool>();
  record->to_resume = FlagAt(json, "to-resume");
  record->ran_there = FlagAt(json, "ran-there");
  record->allocated_bytes = NumberAt(json, "allocated");
  return Head{*std::move(record), NumberAt(json, "sequence")};
}

// A copy that begins at `at`.
struct Copy {
  std::optional<Head> head;
  std::optional<OwnershipRecord> details;
};

Copy ReadCopy(std::string_view content, size_t at) {
  Copy copy;
  const std::string_view from = content.substr(at);
  if (from.size() < kOwnershipLineBytes) return copy;
  if (const auto head = ReadLine(from.substr(0, kOwnershipLineBytes))) copy.head = ReadHead(*head);
  const std::string_view rest = from.substr(kOwnershipLineBytes);
  const size_t end = rest.find('\n');
  if (end == std::string_view::npos) return copy;
  if (const auto details = ReadLine(rest.substr(0, end + 1))) copy.details = ReadDetails(*details);
  return copy;
}

}  // namespace

std::string_view NameOf(SessionRole role) {
  return role == SessionRole::kSource ? "source" : "destination";
}

std::string_view NameOf(OwnershipMark mark) {
  for (const MarkName& known : kMarkNames) {
    if (known.mark == mark) return known.name;
  }
  return "";
}

void CopyOwnershipLine(const OwnershipRecord& from, OwnershipRecord& into) {
  into.mark = from.mark;
  into.run = from.run;
  into.to_resume = from.to_resume;
  into.ran_there = from.ran_there;
  into.allocated_bytes = from.allocated_bytes;
}

std::string FormatOwnershipLine(const OwnershipRecord& record, uint64_t sequence) {
  return MakeLine(HeadOf(record, sequence), kOwnershipLineBytes);
}

std::vector<uint64_t> OwnershipLineOffsets(std::string_view content) {
  return {0, content.size() / 2};
}

std::optional<std::string> FormatOwnershipFile(const OwnershipRecord& record, uint64_t sequence) {
  const std::string details = DetailsOf(record);
  const size_t needed = kOwnershipLineBytes + LineBytes(details);
  const size_t copy_bytes =
      (needed + kOwnershipBlockBytes - 1) / kOwnershipBlockBytes * kOwnershipBlockBytes;
  if (2 * copy_bytes > kMaxOwnershipFileBytes) return std::nullopt;
  const std::string copy = FormatOwnershipLine(record, sequence) +
                           MakeLine(details, copy_bytes - kOwnershipLineBytes);
  std::string content = copy + copy;
  if (ParseOwnershipFile(content).record != record) return std::nullopt;
  return content;
}

ParsedOwnership ParseOwnershipFile(std::string_view content) {
  ParsedOwnership parsed;
  std::optional<Head> head;
  size_t heads = 0, details = 0;
  bool alike = true;
  for (size_t at = 0; at < content.size(); at += kOwnershipBlockBytes) {
    Copy copy = ReadCopy(content, at);
    if (copy.head.has_value()) {
      ++heads;
      alike = alike && (!head.has_value() || (head->sequence == copy.head->sequence &&
                                              head->record == copy.head->record));
      if (!head.has_value() || copy.head->sequence > head->sequence) head = std::move(copy.head);
    }
    if (copy.details.has_value()) {
      ++details;
      alike = alike && (!parsed.details.has_value() || parsed.details == copy.details);
      if (!parsed.details.has_value()) parsed.details = std::move(copy.details);
    }
  }
  if (!head.has_value() || !parsed.details.has_value()) return parsed;
  if (head->record.session != parsed.details->session || head->record.role != parsed.details->role) {
    return parsed;
  }
  parsed.record = parsed.details;
  CopyOwnershipLine(head->record, *parsed.record);
  parsed.sequence = head->sequence;
  parsed.whole = alike && heads == 2 && details == 2;
  return parsed;
}

std::optional<OwnershipRecord> ParseOldOwnershipRecord(std::string_view content) {
  const Json json = Json::parse(content, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || json.contains("crc")) return std::nullopt;
  const auto session = SessionId::Parse(TextAt(json, "session"));
  const MarkName* const mark = FindMark(TextAt(json, "mark"));
  const auto run = json.find("run");
  if (!session.has_value() || mark == nullptr || run == json.end() || !run->is_boolean()) {
    return std::nullopt;
  }
  OwnershipRecord record;
  record.session = *session;
  record.vm = TextAt(json, "vm");
  record.peer = TextAt(json, "peer");
  record.mark = mark->mark;
  record.run = run->get<bool>();
  record.keep_source = FlagAt(json, "keep-source");
  record.vmm.pid = static_cast<int>(
      std::min<uint64_t>(NumberAt(json, "vmm-pid"), std::numeric_limits<int>::max()));
  // Only destinations recorded their VMM.
  const bool destination = mark->destination && (!mark->source || record.vmm.pid != 0);
  record.role = destination ? SessionRole::kDestination : SessionRole::kSource;
  return record;
}

}  // namespace postcopy
