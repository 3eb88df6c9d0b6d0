#include "report_file.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>

namespace postcopy_lab {

int WriteReport(const nlohmann::json& report, const std::string& path) {
  if (path.empty()) {
    std::cout << report.dump() << std::endl;
    return std::cout ? 0 : 1;
  }
  std::ofstream file(path);
  file << report.dump() << std::endl;
  if (file) return 0;
  std::cerr << "lab-load-client: write " << path << ": " << strerror(errno) << "\n";
  return 1;
}

}  // namespace postcopy_lab
