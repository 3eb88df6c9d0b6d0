#include "server/ownership_store.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "absl/strings/str_cat.h"
#include "platform/durable_file.h"
#include "server/status_of.h"

namespace postcopy {
namespace {

// One sector: overwritten whole or not at all.
constexpr size_t kRecordBytes = 512;

struct MarkName {
  OwnershipMark mark;
  std::string_view name;
};
constexpr std::array kMarkNames = {
    MarkName{OwnershipMark::kPrepared, "prepared"},
    MarkName{OwnershipMark::kOffered, "offered"},
    MarkName{OwnershipMark::kHandedOver, "handed-over"},
    MarkName{OwnershipMark::kRolledBack, "rolled-back"},
    MarkName{OwnershipMark::kOwner, "owner"},
    MarkName{OwnershipMark::kNever, "never"},
    MarkName{OwnershipMark::kCommitted, "committed"},
};

std::string_view NameOf(OwnershipMark mark) {
  for (const MarkName& known : kMarkNames) {
    if (known.mark == mark) return known.name;
  }
  return "";
}

std::optional<OwnershipRecord> Parse(const std::string& text) {
  const auto json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  const auto string_at = [&](const char* key) -> std::string {
    const auto found = json.find(key);
    return found != json.end() && found->is_string() ? found->get<std::string>() : "";
  };
  const auto session = SessionId::Parse(string_at("session"));
  const std::string mark = string_at("mark");
  const auto known = std::find_if(kMarkNames.begin(), kMarkNames.end(),
                                  [&](const MarkName& name) { return name.name == mark; });
  const auto run = json.find("run");
  if (!session.has_value() || known == kMarkNames.end() || run == json.end() || !run->is_boolean()) {
    return std::nullopt;
  }
  return OwnershipRecord{*session, string_at("vm"), string_at("peer"), known->mark,
                         run->get<bool>()};
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

std::string OwnershipStore::PathOf(const SessionId& session) const {
  return absl::StrCat(directory_, "/", session.ToString(), ".json");
}

absl::Status OwnershipStore::Write(const OwnershipRecord& record) {
  const nlohmann::json json = {{"session", record.session.ToString()},
                               {"vm", record.vm.substr(0, OwnershipRecord::kMaxNameBytes)},
                               {"peer", record.peer.substr(0, OwnershipRecord::kMaxNameBytes)},
                               {"mark", NameOf(record.mark)},
                               {"run", record.run}};
  std::string text = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.resize(kRecordBytes - 1, ' ');
  text += '\n';
  const std::string path = PathOf(record.session);
  auto written = OverwriteDurably(path, text);
  if (!written.ok() && written.error().code == ErrorCode::kNotFound) {
    written = WriteDurably(path, text);
  }
  if (written.ok()) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("record ", std::string(NameOf(record.mark)), " for VM ",
                                          record.vm, ": ", written.error().message));
}

absl::StatusOr<OwnershipRecord> OwnershipStore::Read(const SessionId& session) const {
  const auto text = ReadWholeFile(PathOf(session), kRecordBytes);
  if (!text.ok()) {
    return text.error().code == ErrorCode::kNotFound ? absl::NotFoundError(text.error().message)
                                                     : absl::DataLossError(text.error().message);
  }
  auto record = Parse(*text);
  if (!record.has_value() || record->session != session) {
    return absl::DataLossError(absl::StrCat("read ", PathOf(session), ": not an ownership record"));
  }
  return *record;
}

std::vector<OwnershipRecord> OwnershipStore::ReadAll(const std::string& vm) const {
  std::vector<std::pair<std::filesystem::file_time_type, OwnershipRecord>> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory_, error)) {
    if (entry.path().extension() != ".json") continue;
    const auto text = ReadWholeFile(entry.path().string(), kRecordBytes);
    const auto record = text.ok() ? Parse(*text) : std::nullopt;
    if (!record.has_value()) {
      spdlog::warn("ownership record unreadable, file {}", entry.path().string());
      continue;
    }
    std::error_code ignored;
    if (record->vm == vm) found.emplace_back(entry.last_write_time(ignored), *record);
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<OwnershipRecord> records;
  for (auto& [when, record] : found) records.push_back(std::move(record));
  return records;
}

void OwnershipStore::Remove(const SessionId& session) {
  std::error_code ignored;
  std::filesystem::remove(PathOf(session), ignored);
}

}  // namespace postcopy
