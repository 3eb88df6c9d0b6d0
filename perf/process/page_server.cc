// process-page-server MIB HOST:PORT: serves MIB MiB of memory.h's content, which nobody changes,
// until it is killed. Says "listening" once it can be reached.
#include "server/page_server.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "perf/process/memory.h"
#include "platform/ram_file.h"

namespace postcopy {
namespace {

static_assert(kPageBytes == LAB_PAGE_BYTES);

[[noreturn]] void Die(const std::string& text) {
  std::fprintf(stderr, "process-page-server: %s\n", text.c_str());
  std::exit(1);
}

UniqueFd MakeContent(uint64_t pages) {
  UniqueFd file(memfd_create(kProcessRegion, MFD_CLOEXEC));
  if (!file.valid() || ftruncate(file.get(), static_cast<off_t>(pages * kPageBytes)) != 0) {
    Die(std::string("make the memory: ") + std::strerror(errno));
  }
  uint64_t words[LAB_PAGE_WORDS];
  for (uint64_t page = 0; page < pages; ++page) {
    process_fill_page(page, words);
    const int error = WriteRamFile(file.get(), page * kPageBytes, std::as_bytes(std::span(words)));
    if (error != 0) Die(std::string("fill the memory: ") + std::strerror(error));
  }
  return file;
}

[[noreturn]] void Serve(uint64_t pages, const std::string& address) {
  std::vector<RamFileSource::RegionFile> files;
  files.push_back({MakeContent(pages), 0});
  auto server = PageServer::Listen({address});
  if (!server.ok()) Die(server.status().ToString());
  SessionId session;
  std::memcpy(session.bytes.data(), kProcessSession, session.bytes.size());
  (*server)->Add(
      session, std::make_shared<RamFileSource>(MemoryLayout{{{kProcessRegion, pages * kPageBytes}}},
                                               std::move(files)));
  (*server)->Freeze(session);
  std::printf("listening\n");
  std::fflush(stdout);
  for (;;) pause();
}

}  // namespace
}  // namespace postcopy

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: process-page-server MIB HOST:PORT\n");
    return 2;
  }
  postcopy::Serve(std::strtoull(argv[1], nullptr, 0) * kPagesPerMib, argv[2]);
}
