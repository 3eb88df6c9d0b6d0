// Where a run's JSON goes.
#ifndef POSTCOPY_LAB_LOAD_REPORT_FILE_H_
#define POSTCOPY_LAB_LOAD_REPORT_FILE_H_

#include <nlohmann/json.hpp>
#include <string>

namespace postcopy_lab {

// Writes `report` as one line to the file `path`, or to standard output if it is empty. Returns the
// process's exit code: 0, or 1 when it could not be written (said on standard error).
int WriteReport(const nlohmann::json& report, const std::string& path);

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_REPORT_FILE_H_
