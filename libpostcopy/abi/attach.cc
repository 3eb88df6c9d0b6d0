// The attach half of the C ABI: checks arguments and turns Results into errno values.
//
// Not responsible for anything that lasts: attach/ does the work. No exception leaves a function.
#include <postcopy/postcopy.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <new>
#include <string>

#include "abi/errno_of.h"
#include "attach/attach_client.h"
#include "attach/block_table.h"
#include "core/units.h"
#include "platform/duplicate_fd.h"
#include "platform/ram_file.h"

struct postcopy_attachment {
  // The table first: the client reads it until its thread has ended.
  postcopy::BlockTable blocks;
  std::unique_ptr<postcopy::AttachClient> client;
};

namespace {

using postcopy::BlockTable;

#define POSTCOPY_QUOTED(x) #x
#define POSTCOPY_TEXT(x) POSTCOPY_QUOTED(x)

// What the first release had, as a number: nothing smaller was ever compiled, and a field that is
// added must not change it.
constexpr size_t kFirstOptionsBytes = 48;
static_assert(sizeof(postcopy_attach_options) >= kFirstOptionsBytes);

void LogToStderr(const std::string& text) {
  const std::string line = "libpostcopy: " + text + "\n";
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, line.data(), line.size());
}

bool AreAligned(const void* address, size_t size_bytes, uint64_t file_offset) {
  const uint64_t bits = reinterpret_cast<uintptr_t>(address) | size_bytes | file_offset;
  return size_bytes != 0 && bits % postcopy::kPageBytes == 0;
}

int AddBlock(postcopy_attachment* attachment, const BlockTable::NewBlock& block) {
  switch (attachment->blocks.Add(block)) {
    case BlockTable::AddOutcome::kAlreadyThere: return -EEXIST;
    case BlockTable::AddOutcome::kFull: return -ENOSPC;
    case BlockTable::AddOutcome::kAdded: break;
  }
  attachment->client->BlocksChanged();
  return 0;
}

int CheckRamFile(int fd) {
  const auto kind = postcopy::QueryRamFileKind(fd);
  if (!kind.ok()) return -EINVAL;
  switch (*kind) {
    case postcopy::RamFileKind::kTmpfs:
    case postcopy::RamFileKind::kHugetlbfs: return 0;
    case postcopy::RamFileKind::kNotAFile: return -EINVAL;
    case postcopy::RamFileKind::kGiantPages:
    case postcopy::RamFileKind::kOtherFile: break;
  }
  return -EOPNOTSUPP;
}

}  // namespace

extern "C" {

const char* postcopy_version(void) {
  return POSTCOPY_TEXT(POSTCOPY_VERSION_MAJOR) "." POSTCOPY_TEXT(
      POSTCOPY_VERSION_MINOR) "." POSTCOPY_TEXT(POSTCOPY_VERSION_PATCH);
}

int postcopy_attach(const postcopy_attach_options* options, postcopy_attachment** attachment) {
  if (options == nullptr || attachment == nullptr) return -EINVAL;
  if (options->size < kFirstOptionsBytes || options->vm_name == nullptr) return -EINVAL;
  postcopy_attach_options known{};
  std::memcpy(&known, options, std::min(options->size, sizeof known));
  options = &known;
  try {
    postcopy::AttachOptions wanted;
    wanted.vm_name = options->vm_name;
    if (options->agent_path != nullptr) wanted.agent_path = options->agent_path;
    if (options->qmp_path != nullptr) wanted.qmp_path = options->qmp_path;
    wanted.notice = LogToStderr;
    if (options->log != nullptr) {
      wanted.notice = [log = options->log, context = options->log_context](
                          const std::string& text) { log(context, text.c_str()); };
    }
    auto made = std::make_unique<postcopy_attachment>();
    auto client = postcopy::AttachClient::Start(std::move(wanted), made->blocks);
    if (!client.ok()) return postcopy::ErrnoOf(client.error().code);
    made->client = std::move(*client);
    *attachment = made.release();
    return 0;
  } catch (const std::bad_alloc&) {
    return -ENOMEM;
  }
}

int postcopy_add_shared_block(postcopy_attachment* attachment, const char* name, void* address,
                              size_t size_bytes, int fd, uint64_t file_offset) {
  const size_t name_bytes = name == nullptr ? 0 : std::strlen(name);
  if (attachment == nullptr || name_bytes > postcopy::kMaxRegionNameBytes) return -EINVAL;
  if (!AreAligned(address, size_bytes, file_offset)) return -EINVAL;
  try {
    if (const int refused = CheckRamFile(fd); refused != 0) return refused;
    char link[32];
    std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    std::string path(postcopy::wire::kMaxBlockPathBytes, '\0');
    const ssize_t length = readlink(link, path.data(), path.size());
    path.resize(length > 0 ? static_cast<size_t>(length) : 0);
    auto kept = postcopy::DuplicateFd(fd);
    if (!kept.ok()) return -EMFILE;
    BlockTable::NewBlock block;
    block.kind = postcopy::wire::BlockKind::kSharedFile;
    block.address = reinterpret_cast<uintptr_t>(address);
    block.size_bytes = size_bytes;
    block.file_offset = file_offset;
    block.ram_file = kept->get();
    block.name = {name == nullptr ? "" : name, name_bytes};
    block.path = path;
    const int result = AddBlock(attachment, block);
    if (result == 0) (void)kept->Release();  // the table owns it
    return result;
  } catch (const std::bad_alloc&) {
    return -ENOMEM;
  }
}

int postcopy_add_anonymous_block(postcopy_attachment* attachment, const char* name, void* address,
                                 size_t size_bytes) {
  const size_t name_bytes = name == nullptr ? 0 : std::strlen(name);
  if (attachment == nullptr || name_bytes > postcopy::kMaxRegionNameBytes) return -EINVAL;
  if (!AreAligned(address, size_bytes, 0)) return -EINVAL;
  BlockTable::NewBlock block;
  block.kind = postcopy::wire::BlockKind::kAnonymous;
  block.address = reinterpret_cast<uintptr_t>(address);
  block.size_bytes = size_bytes;
  block.name = {name == nullptr ? "" : name, name_bytes};
  return AddBlock(attachment, block);
}

int postcopy_remove_block(postcopy_attachment* attachment, void* address, size_t size_bytes) {
  if (attachment == nullptr) return -EINVAL;
  if (!attachment->blocks.RemoveOverlapping(reinterpret_cast<uintptr_t>(address), size_bytes)) {
    return -ENOENT;
  }
  attachment->client->BlocksChanged();
  return 0;
}

void postcopy_detach(postcopy_attachment* attachment) {
  if (attachment == nullptr) return;
  attachment->client.reset();
  attachment->blocks.CloseAll();
  delete attachment;
}

}  // extern "C"
