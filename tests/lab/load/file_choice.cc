#include "file_choice.h"

#include <vector>

namespace postcopy_lab {
namespace {

constexpr double kDirectoryExponent = 1.0;
constexpr double kDownloadDirectoryExponent = 1.2;

// SPECweb99's order of popularity of the nine files of a class, most popular first, is a Zipf
// distribution, too.
std::vector<double> FileWeights() {
  std::vector<double> weights(9);
  double rank = 1;
  for (const size_t file : {4, 3, 5, 2, 6, 1, 7, 8, 0}) weights[file] = 1 / rank++;
  return weights;
}

// SPECweb2005's shares of its classes 0 and 1 of downloads, and of the files in them.
std::vector<double> DownloadWeights() {
  constexpr double kClass0 = 0.1366;
  constexpr double kClass1 = 0.1261;
  return {kClass0 * 0.273, kClass0 * 0.091, kClass0 * 0.165, kClass0 * 0.186,
          kClass0 * 0.285, kClass1 * 0.579, kClass1 * 0.178, kClass1 * 0.243};
}

}  // namespace

FileChoice::FileChoice(uint32_t directories)
    : directory_(Choice::Zipf(directories, kDirectoryExponent)),
      file_class_({0.35, 0.50, 0.14, 0.01}),
      file_(FileWeights()),
      download_directory_(Choice::Zipf(directories, kDownloadDirectoryExponent)),
      download_(DownloadWeights()) {}

StaticFile FileChoice::DrawFile(Random& random) const {
  StaticFile chosen;
  chosen.directory = directory_.Draw(random);
  chosen.file_class = file_class_.Draw(random);
  chosen.file = file_.Draw(random);
  return chosen;
}

Download FileChoice::DrawDownload(Random& random) const {
  Download chosen;
  chosen.directory = download_directory_.Draw(random);
  chosen.number = download_.Draw(random);
  return chosen;
}

}  // namespace postcopy_lab
