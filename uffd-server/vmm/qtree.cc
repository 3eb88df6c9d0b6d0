#include "vmm/qtree.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace postcopy {
namespace {

struct Open {
  size_t indent;
  std::optional<size_t> device;  // position in the list; none: a bus
  std::string bus;
};

std::string Unquoted(std::string_view value) {
  if (value.starts_with('"')) {
    const size_t end = value.rfind('"');
    return std::string(value.substr(1, end == 0 ? std::string_view::npos : end - 1));
  }
  return std::string(value.substr(0, value.find(" (")));
}

// "addr 0.0, port 1.2, speed 12, name ...": where a USB device is plugged in.
void AddUsbPort(std::string_view line, QtreeDevice& device) {
  constexpr std::string_view kPort = ", port ";
  const size_t at = line.find(kPort);
  if (!line.starts_with("addr ") || at == std::string_view::npos) return;
  const std::string_view rest = line.substr(at + kPort.size());
  device.properties["port"] = std::string(rest.substr(0, rest.find(',')));
}

void AddProperty(std::string_view line, QtreeDevice& device) {
  const size_t equal = line.find(" = ");
  if (equal == std::string_view::npos) return AddUsbPort(line, device);
  device.properties[std::string(line.substr(0, equal))] = Unquoted(line.substr(equal + 3));
}

class Reader {
 public:
  void Read(std::string_view line) {
    while (line.ends_with('\r')) line.remove_suffix(1);
    const size_t indent = line.find_first_not_of(' ');
    if (indent == std::string_view::npos) return;
    line.remove_prefix(indent);
    while (!open_.empty() && open_.back().indent >= indent) open_.pop_back();
    if (line.starts_with("bus: ")) {
      open_.push_back({indent, std::nullopt, std::string(line.substr(5))});
    } else if (line.starts_with("dev: ")) {
      Begin(line.substr(5), indent);
    } else if (!open_.empty() && open_.back().device.has_value()) {
      AddProperty(line, devices_[*open_.back().device]);
    }
  }

  std::vector<QtreeDevice> Take() {
    std::map<std::string, int> seen;
    for (size_t i = 0; i < devices_.size(); ++i) {
      QtreeDevice& device = devices_[i];
      if (device.key.empty()) device.key = KeyOf(i);
      const int number = ++seen[device.key];
      if (number > 1) absl::StrAppend(&device.key, " #", number);
    }
    return std::move(devices_);
  }

 private:
  void Begin(std::string_view rest, size_t indent) {
    QtreeDevice device;
    device.type = std::string(rest.substr(0, rest.find(',')));
    const size_t quote = rest.find('"');
    if (quote != std::string_view::npos) {
      const std::string_view id = rest.substr(quote + 1);
      device.key = std::string(id.substr(0, id.rfind('"')));
    }
    std::optional<size_t> parent;
    for (const Open& each : open_) {
      if (each.device.has_value()) parent = each.device;
      if (!each.device.has_value()) device.bus = each.bus;
    }
    open_.push_back({indent, devices_.size(), ""});
    devices_.push_back(std::move(device));
    parents_.push_back(parent);
  }

  std::string KeyOf(size_t i) const {
    const QtreeDevice& device = devices_[i];
    const auto address = device.properties.find("addr");
    if (address != device.properties.end()) {
      return absl::StrCat(device.type, " at ", device.bus, "/", address->second);
    }
    // The device behind a proxy, e.g. virtio-net-device of a virtio-net-pci.
    if (parents_[i].has_value() && device.bus == "virtio-bus") {
      return absl::StrCat(devices_[*parents_[i]].key, "/", device.type);
    }
    return device.type;
  }

  std::vector<Open> open_;
  std::vector<QtreeDevice> devices_;
  std::vector<std::optional<size_t>> parents_;
};

}  // namespace

std::vector<QtreeDevice> ParseQtree(std::string_view text) {
  Reader reader;
  for (absl::string_view line : absl::StrSplit(absl::string_view(text.data(), text.size()), '\n')) {
    reader.Read({line.data(), line.size()});
  }
  return reader.Take();
}

}  // namespace postcopy
