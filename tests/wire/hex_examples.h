// The hex examples of a protocol document: each ```hex block, by the name behind the word hex.
#pragma once

#include <cstddef>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace postcopy::wire {

inline std::string ReadDocument(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// What follows a '#' in a line of hex is a comment.
inline std::map<std::string, std::vector<std::byte>> ReadHexExamples(const std::string& path) {
  std::map<std::string, std::vector<std::byte>> examples;
  std::istringstream document(ReadDocument(path));
  std::string line, name;
  while (std::getline(document, line)) {
    if (line.rfind("```hex ", 0) == 0) {
      name = line.substr(7);
    } else if (line == "```") {
      name.clear();
    } else if (!name.empty()) {
      std::istringstream digits(line.substr(0, line.find('#')));
      std::string byte;
      while (digits >> byte) {
        examples[name].push_back(static_cast<std::byte>(std::stoul(byte, nullptr, 16)));
      }
    }
  }
  return examples;
}

}  // namespace postcopy::wire
