#include "vmm/qtree.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace postcopy {
namespace {

using ::testing::Contains;
using ::testing::IsEmpty;
using ::testing::Pair;

// Shortened answer of QEMU 7.2 to `info qtree`.
constexpr const char* kQtree =
    "bus: main-system-bus\r\n"
    "  type System\r\n"
    "  dev: ioapic, id \"\"\r\n"
    "    gpio-in \"\" 24\r\n"
    "    version = 32 (0x20)\r\n"
    "  dev: ioapic, id \"\"\r\n"
    "    version = 17 (0x11)\r\n"
    "  dev: i440FX-pcihost, id \"\"\r\n"
    "    pci-hole64-size = 2147483648 (2 GiB)\r\n"
    "    bus: pci.0\r\n"
    "      type PCI\r\n"
    "      dev: piix3-usb-uhci, id \"u\"\r\n"
    "        addr = 06.0\r\n"
    "        bus: u.0\r\n"
    "          type usb-bus\r\n"
    "          dev: usb-tablet, id \"\"\r\n"
    "            port = \"\"\r\n"
    "            serial = \"a (b)\"\r\n"
    "            addr 0.0, port 1, speed 12, name QEMU USB Tablet, attached\r\n"
    "      dev: virtio-net-pci, id \"n0\"\r\n"
    "        vectors = 4 (0x4)\r\n"
    "        addr = 05.0\r\n"
    "        class Ethernet controller, addr 00:05.0, pci id 1af4:1000 (sub 1af4:0001)\r\n"
    "        bar 0: i/o at 0xffffffffffffffff [0x1e]\r\n"
    "        bus: virtio-bus\r\n"
    "          type virtio-pci-bus\r\n"
    "          dev: virtio-net-device, id \"\"\r\n"
    "            mac = \"52:54:00:12:34:56\"\r\n"
    "      dev: VGA, id \"\"\r\n"
    "        addr = 02.0\r\n";

const QtreeDevice* Find(const std::vector<QtreeDevice>& devices, const std::string& key) {
  for (const QtreeDevice& device : devices) {
    if (device.key == key) return &device;
  }
  return nullptr;
}

TEST(QtreeTest, ADeviceIsKnownByItsIdOrItsPlace) {
  const auto devices = ParseQtree(kQtree);
  std::vector<std::string> keys;
  for (const QtreeDevice& device : devices) keys.push_back(device.key);
  EXPECT_THAT(keys, testing::ElementsAre("ioapic", "ioapic #2", "i440FX-pcihost", "u",
                                         "usb-tablet", "n0", "n0/virtio-net-device",
                                         "VGA at pci.0/02.0"));
}

TEST(QtreeTest, ValuesComeWithoutQuotesAndWithoutTheirOtherForm) {
  const auto devices = ParseQtree(kQtree);
  ASSERT_NE(Find(devices, "n0"), nullptr);
  EXPECT_THAT(Find(devices, "n0")->properties, Contains(Pair("vectors", "4")));
  EXPECT_THAT(Find(devices, "n0")->properties, Contains(Pair("addr", "05.0")));
  EXPECT_EQ(Find(devices, "n0")->bus, "pci.0");
  EXPECT_THAT(Find(devices, "n0/virtio-net-device")->properties,
              Contains(Pair("mac", "52:54:00:12:34:56")));
  EXPECT_THAT(Find(devices, "usb-tablet")->properties, Contains(Pair("serial", "a (b)")));
}

TEST(QtreeTest, AUsbDevicesPortIsTheOneThatItIsPluggedInto) {
  EXPECT_THAT(Find(ParseQtree(kQtree), "usb-tablet")->properties, Contains(Pair("port", "1")));
}

TEST(QtreeTest, TextOfAnotherFormGivesNoDevice) {
  for (const char* text : {"", "\n\n", "dev:", " = ", "addr , port ", "bus: \n   = \"", "\""}) {
    EXPECT_THAT(ParseQtree(text), IsEmpty()) << text;
  }
  EXPECT_EQ(ParseQtree("dev: \n  a = \"\n").size(), 1u);
}

}  // namespace
}  // namespace postcopy
