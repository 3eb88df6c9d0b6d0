#include "control/relocation_service.h"

#include <gmock/gmock.h>
#include <grpcpp/channel.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <vector>

#include "control/channel.h"
#include "control/control_server.h"
#include "control/relocation_client.h"
#include "control/rpc_status.h"
#include "control/version.h"
#include "tests/control/fake_relocations.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class RelocationServiceTest : public ::testing::Test {
 protected:
  RelocationServiceTest()
      : server_(ControlServer::Start({.addresses = {"127.0.0.1:0"}}, relocations_).value()),
        client_(server_->addresses()[0]) {}

  FakeRelocations relocations_;
  std::unique_ptr<ControlServer> server_;
  RelocationClient client_;
};

TEST_F(RelocationServiceTest, ListTellsVmsSessionsAndVersion) {
  VmSummary idle = VmNamed("web2", 12);
  idle.problem = "no hook";
  idle.guest_state = "running";
  VmSummary busy = VmNamed("web1", 11);
  busy.ram_bytes = 1 << 30;
  busy.in_session = true;
  busy.progress = ProgressIn(SessionState::kRunning);
  relocations_.SetVms({busy, idle});
  const auto list = client_.List();
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->version(), std::string(Version()));
  ASSERT_EQ(list->vms_size(), 2);
  EXPECT_EQ(list->vms(0).name(), "web1");
  EXPECT_EQ(list->vms(0).pid(), 11);
  EXPECT_EQ(list->vms(0).ram_bytes(), uint64_t{1} << 30);
  EXPECT_EQ(list->vms(0).session(), kTestSession);
  EXPECT_EQ(list->vms(0).state(), v1::STATE_RUNNING);
  EXPECT_EQ(list->vms(0).role(), "source");
  EXPECT_EQ(list->vms(1).problem(), "no hook");
  EXPECT_EQ(list->vms(1).guest_state(), "running");
  EXPECT_EQ(list->vms(1).session(), "");
  EXPECT_EQ(list->vms(1).state(), v1::STATE_UNSPECIFIED);
}

TEST_F(RelocationServiceTest, PreparePassesEveryOption) {
  v1::PrepareRequest request;
  request.set_vm("web1");
  request.set_destination("10.77.0.12:7700");
  request.set_destination_vm("web1-b");
  request.set_keep_source(true);
  EXPECT_EQ(client_.Prepare(request).value(), kTestSession);
  EXPECT_EQ(relocations_.prepared().vm, "web1");
  EXPECT_EQ(relocations_.prepared().destination, "10.77.0.12:7700");
  EXPECT_EQ(relocations_.prepared().destination_vm, "web1-b");
  EXPECT_TRUE(relocations_.prepared().keep_source);
}

TEST_F(RelocationServiceTest, CheckAnswersWithAllFindings) {
  v1::CheckRequest request;
  request.set_vm("web1");
  request.set_destination("10.77.0.12:7700");
  request.set_destination_vm("web1-b");
  relocations_.SetFindings({{"source", "job mirror0"}, {"destination", "no such VM"}});
  const auto answer = client_.Check(request);
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_EQ(answer->findings_size(), 2);
  EXPECT_EQ(answer->findings(0).side(), "source");
  EXPECT_EQ(answer->findings(0).message(), "job mirror0");
  EXPECT_EQ(answer->findings(1).side(), "destination");
  EXPECT_EQ(relocations_.prepared().destination_vm, "web1-b");
}

TEST_F(RelocationServiceTest, WhatNobodyWaitsForAnyMoreIsNotLeftPrepared) {
  relocations_.Hold("prepare");
  auto stub = v1::Relocation::NewStub(OpenChannel(server_->addresses()[0]));
  grpc::ClientContext context;
  std::thread asking([&] {
    v1::PrepareRequest request;
    request.set_vm("web1");
    v1::PrepareResponse response;
    EXPECT_EQ(stub->Prepare(&context, request, &response).error_code(),
              grpc::StatusCode::CANCELLED);
  });
  EXPECT_TRUE(relocations_.AwaitCall("prepare web1"));
  context.TryCancel();
  asking.join();
  // A later call of the same connection: the daemon has read the cancellation when it answers.
  grpc::ClientContext later;
  v1::StatsRequest request;
  request.set_vm("web1");
  v1::Progress response;
  EXPECT_TRUE(stub->Stats(&later, request, &response).ok());
  relocations_.LetGo();
  EXPECT_TRUE(relocations_.AwaitCall("cancel web1"));
}

TEST_F(RelocationServiceTest, EveryCallReachesItsMethod) {
  EXPECT_EQ(client_.Switch(kTestSession).value(), 7.5);
  EXPECT_EQ(client_.Stats("web1")->state(), v1::STATE_RUNNING);
  EXPECT_TRUE(client_.Cancel("web1").ok());
  EXPECT_TRUE(client_.Hurry("web1").ok());
  EXPECT_EQ(client_.SourceLost("web1", v1::SOURCE_LOST_ACTION_POISON).value(),
            "the source was lost");
  EXPECT_EQ(client_.SourceLost("web1", v1::SOURCE_LOST_ACTION_KILL).value(), "the source was lost");
  EXPECT_EQ(client_.DestinationLost("web1").value(), "it goes on here");
  EXPECT_TRUE(client_.Release("web1").ok());
  const auto report = client_.Recover("web1");
  EXPECT_EQ(report->owner(), "destination");
  EXPECT_EQ(report->report(), "it runs there");
  EXPECT_EQ(report->state(), v1::STATE_UNKNOWN);
  EXPECT_THAT(relocations_.calls(),
              ElementsAre(std::string("switch ") + kTestSession, "stats web1", "cancel web1",
                          "hurry web1", "source-lost web1 poison", "source-lost web1 kill",
                          "destination-lost web1", "release web1", "recover web1"));
}

TEST_F(RelocationServiceTest, ASourceIsNotGivenUpWithoutAWordHow) {
  for (const int action : {0, 99}) {
    const auto report = client_.SourceLost("web1", static_cast<v1::SourceLostAction>(action));
    EXPECT_TRUE(absl::IsInvalidArgument(report.status())) << report.status();
  }
  EXPECT_THAT(relocations_.calls(), ElementsAre());
}

TEST_F(RelocationServiceTest, EveryCodeAndItsTextArrive) {
  for (int code = 1; code <= static_cast<int>(absl::StatusCode::kUnauthenticated); ++code) {
    const absl::Status failure(static_cast<absl::StatusCode>(code), "release web1: the reason");
    relocations_.Fail("release", failure);
    EXPECT_EQ(client_.Release("web1"), failure);
  }
}

TEST_F(RelocationServiceTest, OverlongTextIsCut) {
  relocations_.Fail("cancel", absl::AbortedError(std::string(100'000, 'x')));
  const absl::Status status = client_.Cancel("web1");
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_LE(status.message().size(), kMaxErrorTextBytes + 4);
}

TEST_F(RelocationServiceTest, UnreachableDaemonIsNamedAndFast) {
  const auto before = std::chrono::steady_clock::now();
  const absl::Status status = RelocationClient("127.0.0.1:1").Cancel("web1");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status.message(), "daemon 127.0.0.1:1: connection refused");
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(3));
}

TEST_F(RelocationServiceTest, WatchStreamsAtOnceThenEachChangeUntilTheEnd) {
  relocations_.Switch(kTestSession).IgnoreError();
  relocations_.SetProgress(ProgressIn(SessionState::kStopping));
  relocations_.AfterSwitch(
      {ProgressIn(SessionState::kStopped), ProgressIn(SessionState::kHandedOver),
       ProgressIn(SessionState::kRunning), ProgressIn(SessionState::kCommitted)});
  std::vector<v1::State> seen;
  const absl::Status status =
      client_.Watch("web1", std::chrono::minutes(1), {},
                    [&](const v1::Progress& progress) { seen.push_back(progress.state()); });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(seen, ElementsAre(v1::STATE_STOPPING, v1::STATE_STOPPED, v1::STATE_HANDED_OVER,
                                v1::STATE_RUNNING, v1::STATE_COMMITTED));
}

TEST_F(RelocationServiceTest, WatchRepeatsAnUnchangedStateEachInterval) {
  int count = 0;
  std::stop_source stop;
  const absl::Status status =
      client_.Watch("web1", milliseconds(20), stop.get_token(), [&](const v1::Progress&) {
        if (++count == 3) stop.request_stop();
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
  EXPECT_GE(count, 3);
}

TEST_F(RelocationServiceTest, WatchOfAnEndedSessionIsOneMessage) {
  for (const SessionState state : {SessionState::kCommitted, SessionState::kRolledBack,
                                   SessionState::kCancelled, SessionState::kFailed}) {
    relocations_.SetProgress(ProgressIn(state));
    int count = 0;
    EXPECT_TRUE(
        client_.Watch("web1", milliseconds(20), {}, [&](const v1::Progress&) { ++count; }).ok());
    EXPECT_EQ(count, 1);
  }
}

TEST_F(RelocationServiceTest, WatchEndsWhenAnotherSessionTakesItsPlace) {
  int count = 0;
  const absl::Status status = client_.Watch("web1", milliseconds(20), {}, [&](const v1::Progress&) {
    if (++count > 1) return;
    Progress other = ProgressIn(SessionState::kPrepared);
    other.session = std::string(32, 'f');
    relocations_.SetProgress(other);
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("forgotten"));
}

TEST_F(RelocationServiceTest, WatchOfAnUnknownVmIsNotFound) {
  relocations_.Fail("stats", absl::NotFoundError("stats web9: no such vm"));
  EXPECT_EQ(client_.Watch("web9", milliseconds(20), {}, [](const v1::Progress&) {}),
            absl::NotFoundError("stats web9: no such vm"));
}

}  // namespace
}  // namespace postcopy
