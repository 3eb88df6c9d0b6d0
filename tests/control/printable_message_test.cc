#include "control/printable_message.h"

#include "control/postcopy.pb.h"
#include "gtest/gtest.h"

namespace postcopy {
namespace {

TEST(PrintableMessageTest, EveryStringIsMadePrintableHoweverDeep) {
  v1::ListResponse list;
  list.set_version("1\x1b[2J");
  list.add_vms()->set_name("web1");
  v1::Vm& vm = *list.add_vms();
  vm.set_problem("ok\nforged \xff line");
  vm.set_pid(7);
  MakePrintable(list);
  EXPECT_EQ(list.version(), "1\\x1b[2J");
  EXPECT_EQ(list.vms(0).name(), "web1");
  EXPECT_EQ(list.vms(1).problem(), "ok\\x0aforged \\xff line");
  EXPECT_EQ(list.vms(1).pid(), 7);
  v1::ListResponse received;
  EXPECT_TRUE(received.ParseFromString(list.SerializeAsString()));
}

TEST(PrintableMessageTest, RepeatedStringsTooAndBytesNot) {
  v1::OfferRequest offer;
  offer.add_devices("net0:virtio-net-pci");
  offer.add_devices("\x1b]0;PWNED\x07");
  MakePrintable(offer);
  EXPECT_EQ(offer.devices(0), "net0:virtio-net-pci");
  EXPECT_EQ(offer.devices(1), "\\x1b]0;PWNED\\x07");
  v1::LoadRequest load;
  load.set_device_state("\x01\xff");
  MakePrintable(load);
  EXPECT_EQ(load.device_state(), "\x01\xff");
}

}  // namespace
}  // namespace postcopy
