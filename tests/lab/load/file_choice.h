// Which of the web site's files is asked for: popularity of directories, classes, sizes and
// downloads.
//
// Pure: randomness is an argument. Where each share is from says docs/loads.md.
#ifndef POSTCOPY_LAB_LOAD_FILE_CHOICE_H_
#define POSTCOPY_LAB_LOAD_FILE_CHOICE_H_

#include <cstdint>

#include "choice.h"
#include "random.h"

namespace postcopy_lab {

struct StaticFile {
  uint32_t directory = 0;
  uint32_t file_class = 0;
  uint32_t file = 0;
};

struct Download {
  uint32_t directory = 0;
  uint32_t number = 0;
};

// What is asked for on a site of that many directories, at least one.
class FileChoice {
 public:
  explicit FileChoice(uint32_t directories);

  StaticFile DrawFile(Random& random) const;
  Download DrawDownload(Random& random) const;

 private:
  const Choice directory_;
  const Choice file_class_;
  const Choice file_;
  const Choice download_directory_;
  const Choice download_;
};

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_FILE_CHOICE_H_
