#include "server/ownership_record.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

namespace postcopy {
namespace {

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

}  // namespace

std::string_view NameOf(OwnershipMark mark) {
  for (const MarkName& known : kMarkNames) {
    if (known.mark == mark) return known.name;
  }
  return "";
}

std::string FormatOwnershipRecord(const OwnershipRecord& record) {
  const nlohmann::json json = {{"session", record.session.ToString()},
                               {"vm", record.vm.substr(0, OwnershipRecord::kMaxNameBytes)},
                               {"peer", record.peer.substr(0, OwnershipRecord::kMaxNameBytes)},
                               {"mark", NameOf(record.mark)},
                               {"run", record.run}};
  std::string text = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.resize(kOwnershipRecordBytes - 1, ' ');
  text += '\n';
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
  return OwnershipRecord{*session, string_at("vm"), string_at("peer"), known->mark,
                         run->get<bool>()};
}

}  // namespace postcopy
