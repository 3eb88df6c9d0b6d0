// The rest of a daemon, as sessions use it: real records, registry and page server, a VMM and another
// daemon that are played (fakes.h). What a test's daemon consists of besides is the test's.
#pragma once

#include <stdlib.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "gtest/gtest.h"
#include "tests/relocation/fakes.h"

namespace postcopy {

class DaemonFixture : public testing::Test {
 protected:
  DaemonFixture() {
    char folder[] = "/tmp/postcopy-daemon-XXXXXX";
    folder_ = mkdtemp(folder);
    store_ = std::make_unique<OwnershipStore>(*OwnershipStore::Open(folder_ + "/state"));
    page_server_ = *PageServer::Listen({"127.0.0.1:0"});
  }
  ~DaemonFixture() override { std::filesystem::remove_all(folder_); }

  // Refers to this fixture. Nothing is asked for again before an hour has passed.
  DaemonParts Parts() {
    return {
        .registry = registry_,
        .page_server = *page_server_,
        .store = *store_,
        .peers = peers_,
        .connect_vmm = [this](const VmRecord&) -> absl::StatusOr<std::unique_ptr<VmmDriver>> {
          return std::make_unique<FakeVmm>(world_, description_, failures_);
        },
        .ask_guests = [this](const std::vector<Monitor>& monitors) { return AskGuests(monitors); },
        .faults = {},
        .addresses = {{"here:7700"}, page_server_->addresses(), true, true},
        .hand_over_retry = std::chrono::milliseconds(1),
        .ask_owner_every = std::chrono::hours(1),
    };
  }

  // What monitors say of their guests; a test may say something else.
  virtual std::vector<GuestAnswer> AskGuests(const std::vector<Monitor>& monitors) {
    return std::vector<GuestAnswer>(monitors.size(), GuestAnswer{"running", ""});
  }
  // The hook of a VM that has registered as client 1 does what it is told at once. It fails where
  // `failures_` names "hook fence" or "hook unfence".
  void AnswerAsHook() {
    for (const VmRegistry::Command& command : registry_.TakeCommands()) {
      if (command.fence.has_value()) {
        const SessionId& session = command.fence->session_id;
        world_.Note("hook fence");
        const auto failure = failures_.find("hook fence");
        if (failure == failures_.end()) {
          registry_.OnFenced(command.client, session);
        } else {
          registry_.OnFenceFailed(command.client, session, std::string(failure->second.message()));
        }
      } else if (command.unfence.has_value()) {
        const SessionId& session = command.unfence->session_id;
        world_.Note("hook unfence");
        const auto failure = failures_.find("hook unfence");
        if (failure == failures_.end()) {
          registry_.OnUnfenced(command.client, session);
        } else {
          registry_.OnUnfenceFailed(command.client, session, std::string(failure->second.message()));
        }
      } else if (!command.arm.has_value()) {
        registry_.OnReleased(command.client, command.release.session_id);
      }
    }
  }

  World world_;
  std::map<std::string, absl::Status> failures_;
  FakeDestination destination_{world_, failures_, {}};
  FakePeers peers_{destination_};
  VmmDescription description_;
  std::string folder_;  // the records are in its `state`
  VmRegistry registry_;
  std::unique_ptr<OwnershipStore> store_;
  std::unique_ptr<PageServer> page_server_;
};

}  // namespace postcopy
