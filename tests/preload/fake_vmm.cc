// Maps memory as QEMU does, on command, so that the hook can be tried without a QEMU.
//
// Reads one command a line from stdin and answers each with one line on stdout:
//   shared PATH BYTES [populate]   reserve, then map the file over it   → mapped N
//   private-file PATH BYTES        the same, MAP_PRIVATE                → mapped N
//   anonymous BYTES [populate]     the same, without a file             → mapped N
//   plain BYTES                    an ordinary mapping                  → mapped N
//   touch N OFFSET                 write one byte there                 → touched
//   unmap N                                                             → unmapped
//   env NAME                                                            → the variable's value
//   fork BYTES                     a child maps anonymous memory, exits → forked
//   daemonize                      go on in a child, the parent exits   → daemonized
//   quit
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace {

struct Mapping {
  void* address = nullptr;
  size_t size_bytes = 0;
};
std::vector<Mapping> mappings;

void MapOverReservation(size_t size_bytes, int flags, int fd) {
  void* reserved = mmap(nullptr, size_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  void* mapped = mmap(reserved, size_bytes, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
  if (mapped == MAP_FAILED) {
    std::perror("mmap");
    std::exit(1);
  }
  mappings.push_back({mapped, size_bytes});
}

void Populate(const std::string& word) {
  if (word != "populate") return;
  const Mapping& last = mappings.back();
  for (size_t at = 0; at < last.size_bytes; at += 4096) {
    static_cast<volatile char*>(last.address)[at] = 1;
  }
}

std::string MapFile(std::istream& words, int flags) {
  std::string path, populate;
  size_t size_bytes = 0;
  words >> path >> size_bytes >> populate;
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0 || ftruncate(fd, static_cast<off_t>(size_bytes)) != 0) return "can't make " + path;
  MapOverReservation(size_bytes, flags, fd);
  close(fd);
  Populate(populate);
  return "mapped " + std::to_string(mappings.size() - 1);
}

std::string MapAnonymous(std::istream& words) {
  std::string populate;
  size_t size_bytes = 0;
  words >> size_bytes >> populate;
  MapOverReservation(size_bytes, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  Populate(populate);
  return "mapped " + std::to_string(mappings.size() - 1);
}

std::string MapPlain(std::istream& words) {
  size_t size_bytes = 0;
  words >> size_bytes;
  void* at = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  mappings.push_back({at, size_bytes});
  return "mapped " + std::to_string(mappings.size() - 1);
}

std::string Touch(std::istream& words) {
  size_t number = 0, offset = 0;
  words >> number >> offset;
  static_cast<volatile char*>(mappings.at(number).address)[offset] = 2;
  return "touched";
}

std::string Unmap(std::istream& words) {
  size_t number = 0;
  words >> number;
  munmap(mappings.at(number).address, mappings.at(number).size_bytes);
  return "unmapped";
}

std::string Fork(std::istream& words) {
  size_t size_bytes = 0;
  words >> size_bytes;
  const pid_t child = fork();
  if (child == 0) {
    MapOverReservation(size_bytes, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    munmap(mappings.back().address, mappings.back().size_bytes);
    _exit(0);
  }
  waitpid(child, nullptr, 0);
  return "forked";
}

std::string Daemonize() {
  if (fork() != 0) _exit(0);
  setsid();
  return "daemonized";
}

std::string Environment(std::istream& words) {
  std::string name;
  words >> name;
  const char* value = std::getenv(name.c_str());
  return value == nullptr ? "(unset)" : value;
}

// The same, behind the place in memory where it is.
std::string EnvironmentAt(std::istream& words) {
  std::string name;
  words >> name;
  const char* value = std::getenv(name.c_str());
  if (value == nullptr) return "(unset)";
  return std::to_string(reinterpret_cast<uintptr_t>(value)) + " " + value;
}

// How many mappings of a child's are of a file of that name.
std::string ChildMaps(std::istream& words) {
  std::string name;
  words >> name;
  FILE* const child = popen(("grep -c " + name + " /proc/self/maps").c_str(), "r");
  char count[32] = {};
  if (child == nullptr || fgets(count, sizeof count, child) == nullptr) return "failed";
  pclose(child);
  return std::string(count, std::strcspn(count, "\n"));
}

}  // namespace

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string command;
    words >> command;
    std::string answer = "what?";
    if (command == "shared") answer = MapFile(words, MAP_SHARED);
    if (command == "private-file") answer = MapFile(words, MAP_PRIVATE);
    if (command == "anonymous") answer = MapAnonymous(words);
    if (command == "plain") answer = MapPlain(words);
    if (command == "touch") answer = Touch(words);
    if (command == "unmap") answer = Unmap(words);
    if (command == "env") answer = Environment(words);
    if (command == "env-at") answer = EnvironmentAt(words);
    if (command == "child-maps") answer = ChildMaps(words);
    if (command == "fork") answer = Fork(words);
    if (command == "daemonize") answer = Daemonize();
    if (command == "quit") return 0;
    std::cout << answer << std::endl;
  }
  return 0;
}
