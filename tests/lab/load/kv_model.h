// What a key-value server must hold: keys k0, k1, … with values of 1 to 4 KiB, each a function of
// seed, key and version, and which versions a `get` may see.
//
// Pure. Not responsible for which key is asked for (key_choice.h), nor for any protocol.
#ifndef POSTCOPY_LAB_LOAD_KV_MODEL_H_
#define POSTCOPY_LAB_LOAD_KV_MODEL_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace postcopy_lab {

// One thread. The only writer of the server, with at most one `set` of a key on its way.
class KvModel {
 public:
  // As many keys as make `values_mib` MiB of values, on average. All have version 0 at first.
  KvModel(uint64_t seed, uint64_t values_mib);

  uint32_t keys() const { return static_cast<uint32_t>(versions_.size()); }
  static std::string Name(uint32_t key) { return "k" + std::to_string(key); }
  // A multiple of 8, the same for all versions.
  size_t ValueBytes(uint32_t key) const;
  // The value of a version: the version itself in the first 8 bytes, then pseudo-random ones.
  std::string Value(uint32_t key, uint64_t version) const;

  bool SetOnTheWay(uint32_t key) const { return versions_[key].on_the_way; }
  // A new version is on its way; returns it. REQUIRES: none is.
  uint64_t BeginSet(uint32_t key);
  // The server has stored it; or it is not known to have.
  void EndSet(uint32_t key, bool stored);

  // The oldest version that a `get` sent now may see.
  uint64_t OldestVisible(uint32_t key) const { return versions_[key].stored; }
  // What is wrong with a value that has come now, of a `get` that was sent when OldestVisible was
  // `oldest`; empty if it is right.
  std::string Judge(uint32_t key, uint64_t oldest, std::string_view value) const;

 private:
  struct Versions {
    uint64_t stored = 0;  // the newest that the server has confirmed
    uint64_t sent = 0;    // the newest that was sent
    bool on_the_way = false;
  };
  uint64_t KeyWord(uint32_t key) const;

  const uint64_t seed_;
  std::vector<Versions> versions_;
};

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_KV_MODEL_H_
