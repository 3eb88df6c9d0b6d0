#include "server/ownership_store.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "platform/durable_file.h"
#include "server/status_of.h"

namespace postcopy {
namespace {

absl::StatusOr<std::string> Format(const OwnershipRecord& record) {
  auto text = FormatOwnershipRecord(record);
  if (text.has_value()) return *std::move(text);
  return absl::InvalidArgumentError(absl::StrCat("record for VM ", record.vm, ", peer ", record.peer,
                                                 ": the names are no text or too long together"));
}

absl::Status NotWritten(const OwnershipRecord& record, const Error& error) {
  return absl::InternalError(absl::StrCat("record ", std::string(NameOf(record.mark)), " for VM ",
                                          record.vm, ": ", error.message));
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
  return store;
}

std::string OwnershipStore::PathOf(const SessionId& session, SessionRole role) const {
  return absl::StrCat(directory_, "/", session.ToString(), ".", std::string(NameOf(role)), ".json");
}

absl::Status OwnershipStore::Create(const OwnershipRecord& record) {
  const auto text = Format(record);
  if (!text.ok()) return text.status();
  const std::string path = PathOf(record.session, record.role);
  const auto created = CreateDurably(path, *text);
  if (!created.ok()) return NotWritten(record, created.error());
  if (*created) return absl::OkStatus();
  return absl::AlreadyExistsError(absl::StrCat("session ", record.session.ToString(),
                                               " is known on this host already (", path, ")"));
}

absl::Status OwnershipStore::Write(const OwnershipRecord& record) {
  const auto text = Format(record);
  if (!text.ok()) return text.status();
  const std::string path = PathOf(record.session, record.role);
  auto written = OverwriteDurably(path, *text);
  if (!written.ok() && written.error().code == ErrorCode::kNotFound) {
    written = WriteDurably(path, *text);
  }
  if (written.ok()) return absl::OkStatus();
  return NotWritten(record, written.error());
}

absl::StatusOr<OwnershipRecord> OwnershipStore::Read(const SessionId& session,
                                                     SessionRole role) const {
  const std::string path = PathOf(session, role);
  const auto text = ReadWholeFile(path, kOwnershipRecordBytes);
  if (!text.ok()) {
    return text.error().code == ErrorCode::kNotFound ? absl::NotFoundError(text.error().message)
                                                     : absl::DataLossError(text.error().message);
  }
  auto record = ParseOwnershipRecord(*text);
  if (!record.has_value() || record->session != session || record->role != role) {
    return absl::DataLossError(absl::StrCat("read ", path, ": not an ownership record"));
  }
  return *record;
}

std::vector<OwnershipRecord> OwnershipStore::ReadAll(const std::string& vm) const {
  std::vector<OwnershipRecord> records = ReadAll();
  std::erase_if(records, [&](const OwnershipRecord& record) { return record.vm != vm; });
  return records;
}

std::vector<OwnershipRecord> OwnershipStore::ReadAll() const {
  std::vector<std::pair<std::filesystem::file_time_type, OwnershipRecord>> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory_, error)) {
    if (entry.path().extension() != ".json") continue;
    const auto text = ReadWholeFile(entry.path().string(), kOwnershipRecordBytes);
    const auto record = text.ok() ? ParseOwnershipRecord(*text) : std::nullopt;
    if (!record.has_value()) {
      spdlog::warn("ownership record unreadable, file {}", entry.path().string());
      continue;
    }
    std::error_code ignored;
    found.emplace_back(entry.last_write_time(ignored), *record);
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<OwnershipRecord> records;
  for (auto& [when, record] : found) records.push_back(std::move(record));
  return records;
}

void OwnershipStore::Remove(const SessionId& session, SessionRole role) {
  std::error_code ignored;
  std::filesystem::remove(PathOf(session, role), ignored);
}

}  // namespace postcopy
