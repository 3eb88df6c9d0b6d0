#include "verify_run.h"

#include <openssl/evp.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "realistic.h"

namespace postcopy_lab {
namespace {

using Clock = std::chrono::steady_clock;
using Digest = std::array<unsigned char, 32>;

// SHA-256 over bytes in any chunks; may be used again after Finish().
class Sha256 {
 public:
  Sha256() { EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr); }
  void Add(const void* bytes, size_t size) { EVP_DigestUpdate(context_.get(), bytes, size); }
  Digest Finish() {
    Digest digest;
    EVP_DigestFinal_ex(context_.get(), digest.data(), nullptr);
    EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr);
    return digest;
  }

 private:
  struct Free {
    void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  };
  std::unique_ptr<EVP_MD_CTX, Free> context_{EVP_MD_CTX_new()};
};

// Of file number `file`; realistic if there is a program to take machine code from.
Digest ExpectedDigest(uint64_t seed, const std::string& program, uint64_t file) {
  static std::array<uint64_t, LAB_FILE_WORDS> words;
  if (program.empty()) {
    lab_fill_file(seed, file, words.data());
  } else {
    lab_fill_realistic_file(seed, file, program.data(), program.size(), words.data());
  }
  Sha256 hash;
  hash.Add(words.data(), sizeof words);
  return hash.Finish();
}

struct Fetcher {
  HttpConnection connection;
  Sha256 hash;
  std::optional<uint64_t> file;  // asked for
};

class Verification {
 public:
  Verification(const VerifyOptions& options, std::string program)
      : options_(options), program_(std::move(program)) {}
  int Run();

 private:
  void Step(Fetcher& fetcher);
  void AskNext(Fetcher& fetcher);
  void Check(Fetcher& fetcher);
  void Take(const Fetcher& fetcher, HttpConnection::Outcome outcome);

  const VerifyOptions options_;
  const std::string program_;  // its bytes
  std::vector<std::unique_ptr<Fetcher>> fetchers_;
  uint64_t next_ = 0;
  uint64_t checked_ = 0;
  uint64_t wrong_ = 0;
  std::string first_wrong_;
  std::string error_;
};

int Verification::Run() {
  const Clock::time_point begin = Clock::now();
  for (int i = 0; i < options_.connections; ++i) {
    fetchers_.push_back(std::make_unique<Fetcher>());
    Take(*fetchers_.back(), fetchers_.back()->connection.Connect(options_.server));
  }
  Clock::time_point progress = begin;
  while (checked_ < options_.files && error_.empty()) {
    std::vector<pollfd> polls;
    for (const auto& fetcher : fetchers_) {
      const short events = fetcher->connection.connected() ? POLLIN : POLLOUT;
      polls.push_back({.fd = fetcher->connection.descriptor(), .events = events, .revents = 0});
    }
    poll(polls.data(), polls.size(), 100);
    const uint64_t before = checked_;
    for (size_t i = 0; i < polls.size() && error_.empty(); ++i) {
      if (polls[i].revents != 0) Step(*fetchers_[i]);
    }
    if (checked_ != before) progress = Clock::now();
    if (Clock::now() - progress > options_.timeout) error_ = "no file finished within the time-out";
  }
  const std::chrono::duration<double> seconds = Clock::now() - begin;
  nlohmann::json report = {
      {"files", options_.files}, {"checked", checked_},        {"wrong", wrong_},
      {"first_wrong", nullptr},  {"seconds", seconds.count()}, {"error", nullptr}};
  if (!first_wrong_.empty()) report["first_wrong"] = first_wrong_;
  if (!error_.empty()) report["error"] = error_;
  std::cout << report.dump() << std::endl;
  if (!error_.empty()) return 3;
  return wrong_ == 0 ? 0 : 1;
}

void Verification::Step(Fetcher& fetcher) {
  const auto outcome = fetcher.connection.OnReady(
      [&](std::span<const char> bytes) { fetcher.hash.Add(bytes.data(), bytes.size()); });
  Take(fetcher, outcome);
  if (outcome == HttpConnection::Outcome::kResponse) Check(fetcher);
  if (outcome == HttpConnection::Outcome::kResponse ||
      outcome == HttpConnection::Outcome::kConnected) {
    AskNext(fetcher);
  }
}

void Verification::Take(const Fetcher& fetcher, HttpConnection::Outcome outcome) {
  if (outcome == HttpConnection::Outcome::kLost) error_ = fetcher.connection.problem();
}

void Verification::AskNext(Fetcher& fetcher) {
  fetcher.file.reset();
  if (next_ == options_.files) return;
  fetcher.file = next_++;
  Take(fetcher, fetcher.connection.Send("/f/" + std::to_string(*fetcher.file)));
}

void Verification::Check(Fetcher& fetcher) {
  const Digest got = fetcher.hash.Finish();
  if (!fetcher.file) return;
  ++checked_;
  const int status = fetcher.connection.response().status();
  if (status == 200 && got == ExpectedDigest(options_.seed, program_, *fetcher.file)) return;
  if (wrong_++ == 0) {
    first_wrong_ = "/f/" + std::to_string(*fetcher.file) +
                   (status == 200 ? ": content" : ": status " + std::to_string(status));
  }
}

}  // namespace

int RunVerify(const VerifyOptions& options) {
  std::string program;
  if (!options.program.empty()) {
    std::ifstream file(options.program, std::ios::binary);
    program.assign(std::istreambuf_iterator<char>(file), {});
    if (program.size() < LAB_PAGE_BYTES) {
      std::cerr << "lab-load-client: read " << options.program << ": "
                << (file ? "shorter than a page" : strerror(errno)) << "\n";
      return 1;
    }
  }
  return Verification(options, std::move(program)).Run();
}

}  // namespace postcopy_lab
