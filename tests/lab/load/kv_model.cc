#include "kv_model.h"

#include <algorithm>
#include <cstring>

#include "content.h"

namespace postcopy_lab {
namespace {

constexpr size_t kMinWords = 1024 / 8;
constexpr size_t kMaxWords = 4096 / 8;
constexpr size_t kMeanBytes = (kMinWords + kMaxWords) / 2 * 8;

}  // namespace

KvModel::KvModel(uint64_t seed, uint64_t values_mib)
    : seed_(seed), versions_(std::max<uint64_t>(1, (values_mib << 20) / kMeanBytes)) {}

uint64_t KvModel::KeyWord(uint32_t key) const {
  return lab_mix64(lab_mix64(seed_ + kLabGolden) + key);
}

size_t KvModel::ValueBytes(uint32_t key) const {
  return (kMinWords + KeyWord(key) % (kMaxWords - kMinWords + 1)) * 8;
}

std::string KvModel::Value(uint32_t key, uint64_t version) const {
  std::vector<uint64_t> words(ValueBytes(key) / 8);
  uint64_t state = lab_mix64(KeyWord(key) + version);
  for (uint64_t& word : words) word = lab_mix64(state += kLabGolden);
  words[0] = version;
  return {reinterpret_cast<const char*>(words.data()), words.size() * 8};
}

uint64_t KvModel::BeginSet(uint32_t key) {
  versions_[key].on_the_way = true;
  return ++versions_[key].sent;
}

void KvModel::EndSet(uint32_t key, bool stored) {
  versions_[key].on_the_way = false;
  if (stored) versions_[key].stored = versions_[key].sent;
}

std::string KvModel::Judge(uint32_t key, uint64_t oldest, std::string_view value) const {
  if (value.size() != ValueBytes(key)) {
    return "value of " + std::to_string(value.size()) + " bytes, not " +
           std::to_string(ValueBytes(key));
  }
  uint64_t version;
  std::memcpy(&version, value.data(), sizeof version);
  if (version < oldest || version > versions_[key].sent) {
    return "version " + std::to_string(version) + ", not " + std::to_string(oldest) + " to " +
           std::to_string(versions_[key].sent);
  }
  const std::string right = Value(key, version);
  const auto wrong = std::mismatch(value.begin(), value.end(), right.begin()).first;
  if (wrong == value.end()) return {};
  return "wrong byte at offset " + std::to_string(wrong - value.begin()) + " of version " +
         std::to_string(version);
}

}  // namespace postcopy_lab
