#include "load_run.h"

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "content.h"
#include "random.h"

namespace postcopy_lab {
namespace {

// The order in which all connections together ask for files.
class Paths {
 public:
  explicit Paths(const LoadOptions& options) : files_(options.files), random_(options.seed) {}

  std::string Next() { return "/f/" + std::to_string(random_.Next() % files_); }

 private:
  const uint64_t files_;
  Random random_;
};

class HttpSession final : public Session {
 public:
  HttpSession(const Server& server, Paths& paths) : server_(server), paths_(paths) {}

  bool Connect() override { return connection_.Connect(server_) != HttpConnection::Outcome::kLost; }
  bool SendNext() override {
    path_ = paths_.Next();
    problem_.clear();
    return connection_.Send(path_) != HttpConnection::Outcome::kLost;
  }
  Event OnReady() override;
  void Close() override { connection_.Close(); }
  int descriptor() const override { return connection_.descriptor(); }
  bool connected() const override { return connection_.connected(); }
  const std::string& request() const override { return path_; }
  const std::string& problem() const override {
    return problem_.empty() ? connection_.problem() : problem_;
  }

 private:
  const Server server_;
  Paths& paths_;
  HttpConnection connection_;
  std::string path_;
  std::string problem_;  // of the response
};

Session::Event HttpSession::OnReady() {
  switch (connection_.OnReady([](std::span<const char>) {})) {
    case HttpConnection::Outcome::kPending:
      return Event::kPending;
    case HttpConnection::Outcome::kConnected:
      return Event::kConnected;
    case HttpConnection::Outcome::kResponse:
      break;
    case HttpConnection::Outcome::kLost:
      problem_.clear();
      return Event::kLost;
  }
  const HttpResponse& response = connection_.response();
  if (response.status() != 200) {
    problem_ = "status " + std::to_string(response.status());
  } else if (response.length_bytes() != LAB_FILE_BYTES) {
    problem_ = "length " + std::to_string(response.length_bytes());
  }
  return problem_.empty() ? Event::kFinished : Event::kFailed;
}

}  // namespace

int RunLoad(const LoadOptions& options) {
  Paths paths(options);
  std::vector<std::unique_ptr<Session>> sessions;
  for (int i = 0; i < options.loop.connections; ++i) {
    sessions.push_back(std::make_unique<HttpSession>(options.server, paths));
  }
  return RunClosedLoop(options.loop, std::move(sessions), [](nlohmann::json&) {});
}

}  // namespace postcopy_lab
