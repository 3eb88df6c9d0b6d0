// Requests of memcached's text protocol.
#ifndef POSTCOPY_LAB_LOAD_KV_REQUEST_H_
#define POSTCOPY_LAB_LOAD_KV_REQUEST_H_

#include <string>

namespace postcopy_lab {

inline std::string GetRequest(const std::string& key) { return "get " + key + "\r\n"; }

// Without flags, never to expire.
inline std::string SetRequest(const std::string& key, const std::string& value) {
  return "set " + key + " 0 0 " + std::to_string(value.size()) + "\r\n" + value + "\r\n";
}

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_KV_REQUEST_H_
