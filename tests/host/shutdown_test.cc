#include "host/shutdown.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <systemd/sd-bus.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

#include "tests/control/fake_relocations.h"

namespace postcopy {
namespace {

using ::testing::HasSubstr;
using std::chrono::seconds;

// Plays systemd's own socket: answers one connection's question for SystemState.
class Manager {
 public:
  explicit Manager(const std::string& state) : state_(state) {
    char name[] = "/tmp/postcopy-test-XXXXXX";
    folder_ = mkdtemp(name);
    listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    path().copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(listen(listener_, 1), 0);
    thread_ = std::thread([this] { Serve(); });
  }
  ~Manager() {
    ending_ = true;
    shutdown(listener_, SHUT_RDWR);
    thread_.join();
    close(listener_);
    std::filesystem::remove_all(folder_);
  }
  std::string path() const { return folder_ + "/private"; }

 private:
  static int Get(sd_bus*, const char*, const char*, const char*, sd_bus_message* reply, void* state,
                 sd_bus_error*) {
    return sd_bus_message_append(reply, "s", static_cast<std::string*>(state)->c_str());
  }
  void Serve() {
    const int connection = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
    if (connection < 0) return;
    static const sd_bus_vtable kTable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_PROPERTY("SystemState", "s", Get, 0, 0),
        SD_BUS_VTABLE_END,
    };
    sd_bus* bus = nullptr;
    sd_id128_t id{};
    id.bytes[0] = 1;
    sd_bus_new(&bus);
    sd_bus_set_fd(bus, connection, connection);
    sd_bus_set_server(bus, 1, id);
    sd_bus_set_anonymous(bus, 1);
    sd_bus_add_object_vtable(bus, nullptr, "/org/freedesktop/systemd1",
                             "org.freedesktop.systemd1.Manager", kTable, &state_);
    sd_bus_start(bus);
    while (!ending_ && sd_bus_process(bus, nullptr) >= 0) sd_bus_wait(bus, 20'000);
    sd_bus_close_unref(bus);
  }

  std::string state_;
  std::string folder_;
  int listener_ = -1;
  std::atomic<bool> ending_ = false;
  std::thread thread_;
};

TEST(ShutdownTest, TheServiceManagerSaysWhetherTheHostShutsDown) {
  for (const char* state : {"stopping", "running", "degraded", "maintenance"}) {
    const Manager manager(state);
    EXPECT_EQ(HostIsShuttingDown(manager.path()), std::string(state) == "stopping") << state;
  }
}

TEST(ShutdownTest, WithoutAServiceManagerItDoesNot) {
  EXPECT_FALSE(HostIsShuttingDown("/no/such/socket"));
}

class AwaitTest : public ::testing::Test {
 protected:
  AwaitTest() {
    sigemptyset(&ends_);
    sigaddset(&ends_, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &ends_, nullptr);
    char name[] = "/tmp/postcopy-test-XXXXXX";
    folder_ = mkdtemp(name);
    manager_ = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    const std::string path = folder_ + "/notify";
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(bind(manager_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    setenv("NOTIFY_SOCKET", path.c_str(), 1);
  }
  ~AwaitTest() override {
    unsetenv("NOTIFY_SOCKET");
    close(manager_);
    std::filesystem::remove_all(folder_);
  }
  // What the service manager was told next; empty: nothing has come.
  std::string Told() const {
    char text[2000];
    const ssize_t size = recv(manager_, text, sizeof text, MSG_DONTWAIT);
    return size < 0 ? "" : std::string(text, static_cast<size_t>(size));
  }
  static Progress Owed() {
    Progress owed = ProgressIn(SessionState::kRunning);
    owed.data_bytes = 512 << 20;
    owed.present_bytes = 212 << 20;
    return owed;
  }

  FakeRelocations relocations_;
  sigset_t ends_;
  std::string folder_;
  int manager_ = -1;
};

TEST_F(AwaitTest, NothingIsWaitedForWhereNothingIsOwed) {
  AwaitOwedMemory(relocations_, seconds(3600), ends_);
  EXPECT_EQ(Told(), "");
}

TEST_F(AwaitTest, MoreTimeIsAskedForUntilNothingIsOwed) {
  relocations_.SetOwed({{Owed()}, {Owed()}, {}});
  AwaitOwedMemory(relocations_, seconds(3600), ends_, std::chrono::milliseconds(1));
  const std::string told = Told();
  EXPECT_THAT(told, HasSubstr("EXTEND_TIMEOUT_USEC=60000000\n"));
  EXPECT_THAT(told, HasSubstr("STATUS=The shutdown waits: memory of VM web1 is still needed by "
                              "10.77.0.12:7700, 300 MiB"));
  EXPECT_THAT(Told(), HasSubstr("300 MiB"));
  EXPECT_EQ(Told(), "");
}

TEST_F(AwaitTest, TheLimitEndsIt) {
  relocations_.SetOwed({{Owed()}});
  AwaitOwedMemory(relocations_, seconds(0), ends_);
  EXPECT_EQ(Told(), "");
}

TEST_F(AwaitTest, ASecondSignalEndsIt) {
  relocations_.SetOwed({{Owed()}});
  pthread_kill(pthread_self(), SIGUSR1);
  AwaitOwedMemory(relocations_, seconds(3600), ends_);
  EXPECT_THAT(Told(), HasSubstr("EXTEND_TIMEOUT_USEC"));
}

}  // namespace
}  // namespace postcopy
