// The device tree of QEMU's monitor command `info qtree`, read line by line.
//
// Pure; text of another form gives fewer devices, never an error.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace postcopy {

struct QtreeDevice {
  // The id; of a device without one its type and place, e.g. "VGA at pci.0/02.0"; equal ones are
  // numbered.
  std::string key;
  std::string type;
  std::string bus;
  std::map<std::string, std::string> properties;  // without quotes and "(0x10)"
};

// In the order of the text.
std::vector<QtreeDevice> ParseQtree(std::string_view text);

}  // namespace postcopy
