#include "server/ownership_record.h"

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>

namespace postcopy {
namespace {

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

constexpr size_t kLongestMarkBytes = std::string_view("handed-over").size();
static_assert(std::all_of(kMarkNames.begin(), kMarkNames.end(), [](const MarkName& known) {
  return known.name.size() <= kLongestMarkBytes;
}));

constexpr std::string_view kTrue = "true";
constexpr std::string_view kFalse = "false";

}  // namespace

std::string_view NameOf(OwnershipMark mark) {
  for (const MarkName& known : kMarkNames) {
    if (known.mark == mark) return known.name;
  }
  return "";
}

std::string_view NameOf(SessionRole role) {
  return role == SessionRole::kSource ? "source" : "destination";
}

std::optional<std::string> FormatOwnershipRecord(const OwnershipRecord& record) {
  nlohmann::json json = {{"session", record.session.ToString()},
                         {"vm", record.vm},
                         {"peer", record.peer},
                         {"mark", NameOf(record.mark)},
                         {"run", record.run}};
  // Other marks tell the role.
  if (record.mark == OwnershipMark::kCommitted && record.role == SessionRole::kDestination) {
    json["role"] = NameOf(record.role);
  }
  if (record.keep_source) json["keep-source"] = true;
  if (record.vmm_pid != 0) json["vmm-pid"] = record.vmm_pid;
  std::string text = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  const size_t longest = text.size() + kLongestMarkBytes - NameOf(record.mark).size() +
                         (record.run ? kFalse.size() - kTrue.size() : 0);
  if (longest >= kOwnershipRecordBytes) return std::nullopt;
  text.resize(kOwnershipRecordBytes - 1, ' ');
  text += '\n';
  if (ParseOwnershipRecord(text) != record) return std::nullopt;  // not UTF-8
  return text;
}

std::optional<OwnershipRecord> ParseOwnershipRecord(std::string_view content) {
  const auto json = nlohmann::json::parse(content, nullptr, /*allow_exceptions=*/false);
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
  const auto keep = json.find("keep-source");
  if (keep != json.end() && !keep->is_boolean()) return std::nullopt;
  const auto pid = json.find("vmm-pid");
  if (pid != json.end() && (!pid->is_number_integer() || pid->get<int64_t>() < 1 ||
                            pid->get<int64_t>() > std::numeric_limits<int>::max())) {
    return std::nullopt;
  }
  const std::string role = string_at("role");
  const bool is_source =
      known->source && (!known->destination || role != NameOf(SessionRole::kDestination));
  return OwnershipRecord{*session,
                         is_source ? SessionRole::kSource : SessionRole::kDestination,
                         string_at("vm"),
                         string_at("peer"),
                         known->mark,
                         run->get<bool>(),
                         keep != json.end() && keep->get<bool>(),
                         pid == json.end() ? 0 : pid->get<int>()};
}

}  // namespace postcopy
