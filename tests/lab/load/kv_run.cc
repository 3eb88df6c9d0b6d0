#include "kv_run.h"

#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "key_choice.h"
#include "kv_fill.h"
#include "kv_model.h"
#include "kv_request.h"
#include "kv_response.h"
#include "random.h"

namespace postcopy_lab {
namespace {

// What all connections have in common.
struct Shared {
  explicit Shared(const KvOptions& given)
      : options(given),
        model(given.seed, given.values_mib),
        random(given.seed),
        keys(model.keys(), given.exponent, random) {}

  bool NextIsSet() { return random.Next() % 100 < static_cast<uint64_t>(options.set_percent); }

  const KvOptions options;
  KvModel model;
  Random random;
  const KeyChoice keys;
  uint64_t wrong_values = 0;
};

class KvSession final : public Session {
 public:
  explicit KvSession(Shared& shared) : shared_(shared) {}

  bool Connect() override { return connection_.Connect(shared_.options.server); }
  bool SendNext() override;
  Event OnReady() override;
  void Close() override;
  int descriptor() const override { return connection_.descriptor(); }
  bool connected() const override { return connection_.connected(); }
  const std::string& request() const override { return request_; }
  const std::string& problem() const override {
    return problem_.empty() ? connection_.problem() : problem_;
  }

 private:
  Event OnResponse();
  std::string JudgeGet() const;

  Shared& shared_;
  TcpConnection connection_;
  KvResponse response_;
  uint32_t key_ = 0;
  bool setting_ = false;  // a set of key_ is on its way
  uint64_t oldest_ = 0;   // the oldest version that a get may see
  std::string request_;
  std::string problem_;  // of the response
};

bool KvSession::SendNext() {
  response_.Reset();
  problem_.clear();
  key_ = shared_.keys.Draw(shared_.random);
  KvModel& model = shared_.model;
  // Two sets of a key at once have no order: what a later get must see would be unknown.
  setting_ = shared_.NextIsSet() && !model.SetOnTheWay(key_);
  const std::string name = KvModel::Name(key_);
  if (setting_) {
    request_ = "set " + name;
    return connection_.Send(SetRequest(name, model.Value(key_, model.BeginSet(key_))));
  }
  request_ = "get " + name;
  oldest_ = model.OldestVisible(key_);
  return connection_.Send(GetRequest(name));
}

Session::Event KvSession::OnReady() {
  problem_.clear();
  if (!connection_.connected()) {
    return connection_.FinishConnecting() ? Event::kConnected : Event::kLost;
  }
  std::string broken;
  const bool stands = connection_.Receive([&](std::span<const char> bytes) {
    const size_t taken = response_.Feed(bytes);
    if (response_.state() == KvResponse::State::kMalformed) {
      broken = "response: " + response_.problem();
    } else if (taken < bytes.size()) {
      broken = "response: bytes after its end";
    }
    return broken.empty() && response_.state() != KvResponse::State::kDone;
  });
  if (!broken.empty()) connection_.Lose(broken);
  if (!stands || !broken.empty()) return Event::kLost;
  return response_.state() == KvResponse::State::kDone ? OnResponse() : Event::kPending;
}

Session::Event KvSession::OnResponse() {
  const bool stored = response_.kind() == KvResponse::Kind::kStored;
  if (response_.kind() == KvResponse::Kind::kError) {
    problem_ = response_.problem();
  } else if (stored != setting_) {
    problem_ = "response to another request";
  } else if (!setting_) {
    problem_ = JudgeGet();
    if (!problem_.empty()) ++shared_.wrong_values;
  }
  if (setting_) shared_.model.EndSet(key_, stored);
  setting_ = false;
  return problem_.empty() ? Event::kFinished : Event::kFailed;
}

std::string KvSession::JudgeGet() const {
  if (response_.kind() == KvResponse::Kind::kMiss) return "no value";
  if (response_.key() != KvModel::Name(key_)) return "value of " + response_.key();
  return shared_.model.Judge(key_, oldest_, response_.value());
}

void KvSession::Close() {
  if (setting_) shared_.model.EndSet(key_, false);
  setting_ = false;
  connection_.Close();
}

}  // namespace

int RunKv(const KvOptions& options) {
  Shared shared(options);
  const std::string problem = FillServer(options.server, shared.model, options.fill_timeout);
  if (!problem.empty()) {
    std::cerr << "lab-load-client: fill " << options.server.host << ": " << problem << "\n";
    return 1;
  }
  std::vector<std::unique_ptr<Session>> sessions;
  for (int i = 0; i < options.loop.connections; ++i) {
    sessions.push_back(std::make_unique<KvSession>(shared));
  }
  return RunClosedLoop(options.loop, std::move(sessions), [&](nlohmann::json& report) {
    report["wrong_values"] = shared.wrong_values;
    report["keys"] = shared.model.keys();
  });
}

}  // namespace postcopy_lab
