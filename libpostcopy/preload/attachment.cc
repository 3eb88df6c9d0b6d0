#include "preload/attachment.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>

#include "attach/attach_client.h"
#include "attach/block_table.h"

namespace postcopy::preload {
namespace {

enum class Mode : int {
  kUndecided,  // no guest RAM seen so far
  kOn,
  kOff,  // not asked for, or given up; the reason has been said
};

constinit BlockTable g_blocks;
constinit std::atomic<Mode> g_mode = Mode::kUndecided;
constinit std::atomic<int> g_owner_pid = 0;  // a forked child has no part in the connection
constinit std::atomic<bool> g_child_warned = false;
constinit std::atomic<bool> g_starting = false;
// Never deleted: the thread ends with the process. The release store publishes the client to the
// acquire loads of other threads that map RAM.
constinit std::atomic<AttachClient*> g_client = nullptr;

void Say(std::string_view text) {
  char line[1200];
  const int length = std::snprintf(line, sizeof line, "libpostcopy: %.*s\n",
                                   static_cast<int>(text.size()), text.data());
  const size_t shown = std::min(static_cast<size_t>(std::max(length, 0)), sizeof line - 1);
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line, shown);
}

bool IsSet(const char* variable) { return variable != nullptr && *variable != '\0'; }

// False: this process is not to be hooked.
bool Decide() {
  const Mode mode = g_mode.load(std::memory_order_acquire);
  if (mode == Mode::kUndecided) {
    const bool asked = IsSet(std::getenv("POSTCOPY_VM"));
    int no_owner = 0;
    g_owner_pid.compare_exchange_strong(no_owner, getpid(), std::memory_order_relaxed);
    Mode expected = Mode::kUndecided;
    const bool first = g_mode.compare_exchange_strong(expected, asked ? Mode::kOn : Mode::kOff,
                                                      std::memory_order_acq_rel);
    if (first && !asked) Say("POSTCOPY_VM is not set: this VM runs unhooked");
    return asked && expected != Mode::kOff;
  }
  if (mode == Mode::kOff) return false;
  if (g_owner_pid.load(std::memory_order_relaxed) == getpid()) return true;
  if (!g_child_warned.exchange(true, std::memory_order_relaxed)) {
    Say("forked from a hooked VM: RAM mapped by the child is not hooked");
  }
  return false;
}

// The value of LD_PRELOAD that this process was started with, in the environment itself. Found while
// there is one thread: later another one may be changing the environment.
constinit char* g_preload = nullptr;

__attribute__((constructor)) void FindPreload() { g_preload = std::getenv("LD_PRELOAD"); }

// Other threads of the VMM may be reading the environment, so nothing of it is moved or freed: a few
// of its characters become blanks.
void StopPreloadingChildren() {
  Dl_info self{};
  if (!IsSet(g_preload) || dladdr(reinterpret_cast<void*>(&RecordMapping), &self) == 0) return;
  BlankOwnEntry(g_preload, self.dli_fname);
}

void GiveUp(const std::string& reason) {
  g_mode.store(Mode::kOff, std::memory_order_release);
  Say("this VM runs unhooked: " + reason);
}

void StartClient() {
  AttachOptions options;
  options.vm_name = std::getenv("POSTCOPY_VM");
  if (const char* path = std::getenv("POSTCOPY_AGENT"); IsSet(path)) options.agent_path = path;
  if (const char* path = std::getenv("POSTCOPY_QMP"); IsSet(path)) options.qmp_path = path;
  options.notice = [](const std::string& text) { Say(text); };
  auto client = AttachClient::Start(std::move(options), g_blocks);
  if (!client.ok()) return GiveUp(client.error().message);
  g_client.store(client->get(), std::memory_order_release);
  (void)std::move(*client).release();
  StopPreloadingChildren();
}

void NoteProblem(std::string_view text) {
  if (g_blocks.SetProblem(text)) Say(text);
}

void AddBlock(const MmapCall& call, Verdict verdict) {
  PathBuffer path_buffer;
  BlockTable::NewBlock block;
  block.address = call.address;
  block.size_bytes = call.size_bytes;
  if (verdict == Verdict::kSharedFile) {
    block.kind = wire::BlockKind::kSharedFile;
    block.file_offset = call.file_offset;
    block.path = ReadPath(call.fd, path_buffer);
    block.ram_file = fcntl(call.fd, F_DUPFD_CLOEXEC, 3);
    if (block.ram_file < 0) return NoteProblem("out of descriptors: the RAM file can't be kept");
  }
  const auto outcome = g_blocks.Add(block);
  if (outcome != BlockTable::AddOutcome::kAdded && block.ram_file >= 0) close(block.ram_file);
  if (outcome == BlockTable::AddOutcome::kFull) NoteProblem("the VM has more than 64 RAM blocks");
}

// Starts the client once, then tells it that the table has changed. Whoever maps RAM while another
// thread is starting the client may leave: that thread wakes the client after it is published.
void TellClient() {
  if (!g_starting.exchange(true, std::memory_order_acq_rel)) StartClient();
  AttachClient* client = g_client.load(std::memory_order_acquire);
  if (client != nullptr) client->BlocksChanged();
}

}  // namespace

void RecordMapping(const MmapCall& call, Verdict verdict) {
  if (!Decide()) return;
  try {
    if (verdict == Verdict::kUnsupported) {
      TextBuffer text;
      NoteProblem(Problem(call, text));
    } else {
      AddBlock(call, verdict);
    }
    TellClient();
  } catch (const std::exception& error) {
    GiveUp(error.what());
  }
}

void ForgetMapping(uint64_t address, uint64_t size_bytes) {
  if (!g_blocks.HasSomething()) return;
  if (g_owner_pid.load(std::memory_order_relaxed) != getpid()) return;
  if (!g_blocks.RemoveOverlapping(address, size_bytes)) return;
  AttachClient* client = g_client.load(std::memory_order_acquire);
  if (client != nullptr) client->BlocksChanged();
}

void BlankOwnEntry(char* preload, const char* own) {
  const auto last_component = [](std::string_view path) {
    const size_t slash = path.rfind('/');
    return slash == std::string_view::npos ? path : path.substr(slash + 1);
  };
  const std::string_view own_name = last_component(own);
  for (char* at = preload; *at != '\0';) {
    const size_t length = std::strcspn(at, ": ");
    if (length > 0 && last_component({at, length}) == own_name) std::memset(at, ' ', length);
    at += length;
    if (*at != '\0') ++at;
  }
}

}  // namespace postcopy::preload
