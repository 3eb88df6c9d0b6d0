// What the process at the other end of a monitor socket may send: bytes through the client's own
// reading path, over a socket, cut anywhere. First byte of the input: odd, and the rest comes in
// place of the greeting; even, and it comes after a command, in pieces whose length the byte says;
// kLongMessage, and the first object of a short input is about as long as one may be. However it is
// cut, the events that are handed out are those of the same bytes in one piece, up to the first
// thing that is no JSON object.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "tests/vmm/scripted_qmp.h"
#include "vmm/qmp_client.h"

namespace postcopy {
namespace {

constexpr std::chrono::seconds kNever{60};  // every script ends with a hang-up
constexpr unsigned char kLongMessage = 254;
constexpr size_t kLongMessageLacksBytes = 16;
constexpr size_t kShortInputBytes = 32;  // a long message takes a second

void Require(bool condition) {
  if (!condition) std::abort();
}

std::vector<std::string> Cut(std::string_view text, size_t piece_bytes) {
  std::vector<std::string> pieces;
  for (; !text.empty(); text.remove_prefix(std::min(piece_bytes, text.size()))) {
    pieces.emplace_back(text.substr(0, piece_bytes));
  }
  return pieces;
}

// How long the object is that `text` begins with; 0: it has none, or none that ends. Recursive, unlike
// the reader of the daemon.
size_t ObjectBytes(std::string_view text, size_t levels = 1) {
  if (levels > kMaxJsonLevels) return 0;
  for (size_t i = 1; i < text.size(); ++i) {
    if (text[i] == '}' || text[i] == ']') return i + 1;
    if (text[i] == '{' || text[i] == '[') {
      const size_t inner = ObjectBytes(text.substr(i), levels + 1);
      if (inner == 0) return 0;
      i += inner - 1;
    } else if (text[i] == '"') {
      for (++i; i < text.size() && text[i] != '"'; ++i) i += text[i] == '\\';
    }
  }
  return 0;
}

// The names of the events that are kept, of those in whole objects before the first thing that is
// none or is too long.
std::vector<std::string> EventsOf(std::string_view text) {
  std::vector<std::string> names;
  std::vector<size_t> sizes;
  for (;;) {
    text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
    const size_t bytes = text.empty() || text[0] != '{' ? 0 : ObjectBytes(text);
    if (bytes == 0 || bytes > QmpClient::kMaxMessageBytes) break;
    const Json message = ParseJson(text.substr(0, bytes));
    if (!message.is_object()) break;
    if (!message.contains("QMP") && message.contains("event")) {
      names.push_back(StringAt(message, "event"));
      sizes.push_back(bytes);
    }
    text.remove_prefix(bytes);
  }
  size_t kept = 0;
  for (size_t bytes = 0; kept < names.size() && kept < QmpClient::kMaxQueuedEvents; ++kept) {
    bytes += sizes[names.size() - 1 - kept];
    if (bytes > QmpClient::kMaxQueuedEventBytes) break;
  }
  names.erase(names.begin(), names.end() - static_cast<ptrdiff_t>(kept));
  return names;
}

void ReadAfterACommand(std::string_view text, size_t piece_bytes) {
  ScriptedQmp server([&](const Json&) -> QmpAnswer { return {Cut(text, piece_bytes), true}; });
  const auto client = QmpClient::Open(server.TakeClientEnd(), "monitor", kNever);
  Require(client.ok());
  uint64_t cursor = (*client)->EventCursor();
  Require(cursor == 0);
  const auto answer = (*client)->Command("query-status", Json::object(), kNever);
  Require(answer.ok() || !absl::IsDeadlineExceeded(answer.status()));

  std::vector<std::string> names;
  // To the end first, so that only what is kept is read.
  for (uint64_t end = UINT64_MAX; (*client)->NextEvent(end, kNever).ok();) {}
  for (;;) {
    const auto event = (*client)->NextEvent(cursor, kNever);
    if (!event.ok()) {
      Require(absl::IsUnavailable(event.status()));
      break;
    }
    names.push_back(event->name);
  }
  Require(names == EventsOf(text));
}

void ReadInPlaceOfTheGreeting(const std::string& text) {
  ScriptedQmp server([](const Json&) -> QmpAnswer { return {{}, true}; }, text);
  server.HangUp();
  const auto client = QmpClient::Open(server.TakeClientEnd(), "monitor", kNever);
  Require(client.ok() || !absl::IsDeadlineExceeded(client.status()));
}

void Read(std::string_view input) {
  if (input.empty()) return;
  const auto how = static_cast<unsigned char>(input[0]);
  input.remove_prefix(1);
  if (how % 2 != 0) return ReadInPlaceOfTheGreeting(std::string(input));
  std::string text(input);
  if (how == kLongMessage && text.size() <= kShortInputBytes) {
    text.insert(0, "{" + std::string(QmpClient::kMaxMessageBytes - kLongMessageLacksBytes, ' '));
  }
  // At most 64 pieces: each is a system call.
  ReadAfterACommand(text, std::max<size_t>(1 + how * 27, text.size() / 64));
}

}  // namespace
}  // namespace postcopy

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  postcopy::Read(std::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
