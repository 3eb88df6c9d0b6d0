#include "server/ownership_store.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <string_view>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "platform/durable_file.h"
#include "server/status_of.h"

namespace postcopy {
namespace {

constexpr const char* kSuffix = ".json";
constexpr const char* kUnfinishedSuffix = ".json.new";

struct FileName {
  std::optional<SessionId> session;
  std::optional<SessionRole> role;
  bool is_old = false;  // an earlier version's: without a role
};

// Of a file that is no record's: nothing.
std::optional<FileName> ParseFileName(const std::string& name) {
  if (!absl::EndsWith(name, kSuffix)) return std::nullopt;
  const std::string stem = name.substr(0, name.size() - std::string_view(kSuffix).size());
  FileName parsed;
  const size_t dot = stem.find('.');
  parsed.session = SessionId::Parse(stem.substr(0, dot));
  parsed.is_old = dot == std::string::npos;
  for (const SessionRole role : {SessionRole::kSource, SessionRole::kDestination}) {
    if (!parsed.is_old && stem.substr(dot + 1) == NameOf(role)) parsed.role = role;
  }
  return parsed;
}

absl::StatusOr<std::string> Format(const OwnershipRecord& record, uint64_t sequence) {
  auto text = FormatOwnershipFile(record, sequence);
  if (text.has_value()) return *std::move(text);
  return absl::InvalidArgumentError(absl::StrCat("record for VM ", record.vm, ", peer ", record.peer,
                                                 ": a name is no UTF-8, or they are too long together"));
}

absl::Status NotWritten(const OwnershipRecord& record, const Error& error) {
  return absl::InternalError(absl::StrCat("record ", std::string(NameOf(record.mark)), " for VM ",
                                          record.vm, ": ", error.message));
}

absl::Status CannotRead(const Error& error) {
  switch (error.code) {
    case ErrorCode::kNotFound: return absl::NotFoundError(error.message);
    case ErrorCode::kUnavailable: return absl::UnavailableError(error.message);
    default: return absl::DataLossError(error.message);
  }
}

// Whether everything but what the first line holds is the same.
bool DiffersInLineOnly(const OwnershipRecord& one, OwnershipRecord other) {
  CopyOwnershipLine(one, other);
  return one == other;
}

}  // namespace

absl::StatusOr<OwnershipStore> OwnershipStore::Open(const std::string& directory) {
  const auto made = MakeDirectory(directory);
  if (!made.ok()) return StatusOf(made.error());
  OwnershipStore store(directory);
  const std::string probe = directory + "/.probe";
  const auto written = WriteDurably(probe, "");
  if (!written.ok()) return StatusOf(written.error());
  std::error_code ignored;
  std::filesystem::remove(probe, ignored);
  absl::Status status = store.RepairRecords();
  if (status.ok()) status = store.TakeOverOldRecords();
  if (!status.ok()) return absl::InternalError(status.message());
  return store;
}

std::string OwnershipStore::PathOf(const SessionId& session, SessionRole role) const {
  return absl::StrCat(directory_, "/", session.ToString(), ".", std::string(NameOf(role)), kSuffix);
}

// Also finds out the last sequence number.
absl::Status OwnershipStore::RepairRecords() {
  const auto names = ListFolder(directory_);
  if (!names.ok()) return StatusOf(names.error());
  uint64_t last = 0;
  for (const std::string& name : *names) {
    const std::string path = directory_ + "/" + name;
    if (absl::EndsWith(name, kUnfinishedSuffix)) {  // its daemon ended before it was in its place
      std::error_code ignored;
      std::filesystem::remove(path, ignored);
    }
    const auto parsed_name = ParseFileName(name);
    if (!parsed_name.has_value() || parsed_name->is_old) continue;
    const auto content = ReadWholeFile(path, kMaxOwnershipFileBytes);
    const ParsedOwnership parsed = content.ok() ? ParseOwnershipFile(*content) : ParsedOwnership{};
    last = std::max(last, parsed.sequence);
    if (!parsed.record.has_value() || parsed.whole) continue;
    // A write was cut off, or a copy is damaged: what is read is to stay readable.
    const auto repaired = WriteDurably(path, *FormatOwnershipFile(*parsed.record, parsed.sequence));
    if (!repaired.ok()) return StatusOf(repaired.error());
    spdlog::warn("ownership record repaired from one of its copies, vm {}, mark {}, file {}",
                 parsed.record->vm, NameOf(parsed.record->mark), path);
  }
  sequence_->store(last, std::memory_order_relaxed);
  return absl::OkStatus();
}

absl::Status OwnershipStore::TakeOverOldRecords() {
  const auto names = ListFolder(directory_);
  if (!names.ok()) return StatusOf(names.error());
  struct Old {
    std::filesystem::file_time_type written;
    std::string path;
    OwnershipRecord record;
  };
  std::vector<Old> found;
  for (const std::string& name : *names) {
    const auto parsed_name = ParseFileName(name);
    if (!parsed_name.has_value() || !parsed_name->is_old) continue;
    const std::string path = directory_ + "/" + name;
    const auto content = ReadWholeFile(path, kMaxOwnershipFileBytes);
    const auto record = content.ok() ? ParseOldOwnershipRecord(*content) : std::nullopt;
    if (!record.has_value()) continue;  // ReadAll() tells of it
    std::error_code unknown;
    found.push_back({std::filesystem::last_write_time(path, unknown), path, *record});
  }
  std::sort(found.begin(), found.end(),
            [](const Old& a, const Old& b) { return a.written < b.written; });
  for (const Old& old : found) {
    const absl::Status created = Create(old.record);
    // One that exists was taken over before the old file could be removed.
    if (!created.ok() && !absl::IsAlreadyExists(created)) return created;
    std::error_code failure;
    std::filesystem::remove(old.path, failure);
    if (failure) return absl::InternalError(absl::StrCat("remove ", old.path, ": ", failure.message()));
  }
  return absl::OkStatus();
}

absl::Status OwnershipStore::Create(const OwnershipRecord& record) {
  const auto text = Format(record, NextSequence());
  if (!text.ok()) return text.status();
  const std::string path = PathOf(record.session, record.role);
  const auto created = CreateDurably(path, *text);
  if (!created.ok()) return NotWritten(record, created.error());
  if (*created) return absl::OkStatus();
  return absl::AlreadyExistsError(absl::StrCat("session ", record.session.ToString(),
                                               " is known on this host already (", path, ")"));
}

absl::Status OwnershipStore::Write(const OwnershipRecord& record) {
  const uint64_t sequence = NextSequence();
  const std::string path = PathOf(record.session, record.role);
  const auto before = ReadWholeFile(path, kMaxOwnershipFileBytes);
  const ParsedOwnership parsed = before.ok() ? ParseOwnershipFile(*before) : ParsedOwnership{};
  // Where a copy is damaged, a line alone would not make it whole.
  if (parsed.whole && DiffersInLineOnly(record, *parsed.record)) {
    const auto written = OverwriteDurably(path, FormatOwnershipLine(record, sequence),
                                          OwnershipLineOffsets(*before));
    return written.ok() ? absl::OkStatus() : NotWritten(record, written.error());
  }
  const auto text = Format(record, sequence);
  if (!text.ok()) return text.status();
  const auto written = WriteDurably(path, *text);
  return written.ok() ? absl::OkStatus() : NotWritten(record, written.error());
}

absl::StatusOr<OwnershipRecord> OwnershipStore::Read(const SessionId& session,
                                                     SessionRole role) const {
  const std::string path = PathOf(session, role);
  const auto content = ReadWholeFile(path, kMaxOwnershipFileBytes);
  if (!content.ok()) return CannotRead(content.error());
  ParsedOwnership parsed = ParseOwnershipFile(*content);
  if (!parsed.record.has_value() || parsed.record->session != session ||
      parsed.record->role != role) {
    return absl::DataLossError(absl::StrCat("read ", path, ": not an ownership record, or damaged"));
  }
  return *std::move(parsed.record);
}

absl::StatusOr<OwnershipStore::Records> OwnershipStore::ReadAll(const std::string& vm) const {
  auto records = ReadAll();
  if (!records.ok()) return records;
  std::erase_if(records->readable, [&](const OwnershipRecord& record) { return record.vm != vm; });
  std::erase_if(records->unreadable, [&](const UnreadableRecord& record) {
    return record.details.has_value() && record.details->vm != vm;
  });
  return records;
}

absl::StatusOr<OwnershipStore::Records> OwnershipStore::ReadAll() const {
  const auto names = ListFolder(directory_);
  if (!names.ok()) return absl::UnavailableError(names.error().message);
  std::vector<std::pair<uint64_t, OwnershipRecord>> found;
  Records records;
  for (const std::string& name : *names) {
    const auto parsed_name = ParseFileName(name);
    if (!parsed_name.has_value()) continue;
    const std::string path = directory_ + "/" + name;
    const auto content = ReadWholeFile(path, kMaxOwnershipFileBytes);
    if (!content.ok() && content.error().code == ErrorCode::kNotFound) continue;  // just removed
    if (!content.ok() && content.error().code == ErrorCode::kUnavailable) {
      return absl::UnavailableError(content.error().message);
    }
    ParsedOwnership parsed = content.ok() ? ParseOwnershipFile(*content) : ParsedOwnership{};
    if (parsed.record.has_value() && parsed.record->session == parsed_name->session &&
        parsed.record->role == parsed_name->role) {
      found.emplace_back(parsed.sequence, *std::move(parsed.record));
      continue;
    }
    records.unreadable.push_back(
        {path, content.ok() ? "not an ownership record, or damaged" : content.error().message,
         parsed_name->session, parsed_name->role, std::move(parsed.details)});
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  for (auto& [sequence, record] : found) records.readable.push_back(std::move(record));
  return records;
}

void OwnershipStore::Remove(const SessionId& session, SessionRole role) {
  std::error_code ignored;
  std::filesystem::remove(PathOf(session, role), ignored);
}

}  // namespace postcopy
