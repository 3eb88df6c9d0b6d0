#!/usr/bin/env python3
"""On Debian 12's own kernel, Linux 6.1, in a machine of its own: the tests of what touches the kernel,
and a relocation of a guest whose network card is vhost-net's, which faults in the kernel.
"""

import json
import pathlib
import re
import shutil
import unittest

import support
from lab import guest, nested
from lab.host import Programs

_GUEST = guest.Parameters(files_mib=0, check_mib=24, check_pause_us=1000)
_KERNEL_TESTS = ("platform/platform_userfault_test", "preload/preload_guest_ram_test",
                 "attach/attach_arming_test", "engine/engine_engine_test")
_QEMU_FILES = ("seabios/bios-256k.bin", "qemu/kvmvapic.bin", "qemu/linuxboot_dma.bin")

_RELOCATION = """
set -e
ip link add br0 type bridge
ip addr add 10.77.0.1/24 dev br0
ip link set br0 up
for tap in tapa tapb; do
  tunctl -t $tap
  ip link set $tap master br0 up
done
serve() {{  # HOST CONTROL-PORT PAGES-PORT
  {daemon} --config /dev/null --listen 127.0.0.1:$2 --data-listen 127.0.0.1:$3 \
    --runtime-dir /run/$1 --state-dir /tmp/$1 >/tmp/$1.log 2>&1 &
}}
show() {{ {ctl} --daemon 127.0.0.1:$1 list; }}
start() {{  # HOST ARGUMENTS...
  host=$1; shift
  POSTCOPY_VM=web1 POSTCOPY_AGENT=/run/$host/agent.sock POSTCOPY_QMP=/run/$host.qmp \
  LD_PRELOAD={hook} {qemu} -machine pc-i440fx-7.2,memory-backend=ram -accel tcg -m 192M \
    -nodefaults -no-user-config -vga none -display none \
    -object memory-backend-file,id=ram,size=192M,mem-path=/dev/shm/$host,share=on \
    -netdev tap,id=net0,ifname=tap$host,script=no,downscript=no,vhost=on \
    -device virtio-net-pci,netdev=net0,mac=52:54:00:77:00:02,romfile= \
    -kernel /inner/kernel -initrd /inner/initramfs -append "{append}" \
    -chardev file,id=serial0,path=/tmp/$host.serial -serial chardev:serial0 \
    -qmp unix:/run/$host.qmp,server=on,wait=off "$@" 2>/tmp/$host.err &
}}
status() {{ printf 'GET /memcheck.json HTTP/1.0\\r\\n\\r\\n' | nc -w 5 {address} 80 | grep passes; }}
passes() {{ status | sed 's/.*"passes": \\([0-9]*\\).*/\\1/'; }}

serve a 7700 7701
serve b 7800 7801
until show 7700 && show 7800; do sleep 1; done
start a
until grep -q "GUEST READY" /tmp/a.serial; do
  sleep 2
  ! grep "GUEST FAILED" /tmp/a.serial
done
start b -S -incoming defer
until show 7800 | grep web1; do sleep 1; done
ls -l /proc/$(pidof qemu-system-x86_64 | cut -d' ' -f1)/fd | grep -c vhost-net
before=$(passes)
echo "PASSES $before"
{ctl} --daemon 127.0.0.1:7700 relocate web1 --to 127.0.0.1:7800 --json >/tmp/answer ||
  {{ cat /tmp/answer /tmp/a.log /tmp/b.log /tmp/?.err; exit 1; }}
echo "ANSWER $(tr -d '\\n' </tmp/answer)"
tries=0
until now=$(passes) && [ "${{now:-0}}" -ge $((before + 2)) ]; do
  tries=$((tries + 1))
  [ $tries -lt 120 ] || {{ echo "the guest's checker does not go on"; tail /tmp/b.serial; exit 1; }}
  sleep 1
done
echo "CHECKER $(status)"
"""


class OnDebiansKernel(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        support.require()

    def test_what_touches_the_kernel(self):
        folder = Programs.built().daemon.parents[1] / "tests"
        programs = [folder / name for name in _KERNEL_TESTS]
        lines = [f"{program} --gtest_brief=1 --gtest_color=no || failed=1" for program in programs]
        console = nested.run("\n".join(["uname -r", "failed=0", *lines, "exit $failed"]), programs)
        self.assertRegex(console, r"(?m)^6\.1\.")
        passed = re.findall(r"\[  PASSED  \] (\d+) tests?", console)
        print(f"Linux {re.search(r'(?m)^6[.]1[.][^ ]*', console)[0].strip()}: "
              f"{sum(map(int, passed))} cases passed")
        self.assertEqual(len(passed), len(_KERNEL_TESTS))

    def test_a_guest_with_vhost_net(self):
        built = Programs.built()
        qemu = shutil.which("qemu-system-x86_64")
        accelerator = pathlib.Path("/usr/lib/x86_64-linux-gnu/qemu/accel-tcg-x86_64.so")
        image = guest.image()
        files = {f"/usr/share/{name}": f"/usr/share/{name}" for name in _QEMU_FILES}
        script = _RELOCATION.format(
            daemon=built.daemon, ctl=built.ctl, hook=built.hook, qemu=qemu,
            address=_GUEST.address, append=_GUEST.command_line())
        console = nested.run(
            script, [built.daemon, built.ctl, built.hook, qemu, accelerator, shutil.which("ip")],
            files | {"/inner/kernel": image.kernel, "/inner/initramfs": image.initramfs},
            modules=("tun", "bridge", "vhost_net"), memory_mib=1536, timeout_s=600)
        answer = json.loads(re.search(r"ANSWER (.*)", console)[1])
        status = json.loads(re.search(r"CHECKER (.*)", console)[1])
        print(f"vhost-net on Linux 6.1: {answer['faults']} faults, p50 {answer['fault_p50_us']:.0f} us, "
              f"downtime {answer['downtime_ms']:.0f} ms, {status['passes']} passes of the checker")
        self.assertEqual(answer["outcome"], "committed")
        self.assertEqual(status["errors"], 0)


if __name__ == "__main__":
    support.main()
