#!/usr/bin/env python3
"""Guest RAM in the shapes that users give it: huge pages, an inherited memfd, an alignment, several
NUMA nodes, more than 4 GiB, memory that was added to the running guest, and a file far larger than
what is in it.
"""

import pathlib
import re
import threading
import time

import support
from byte_comparison import ByteComparison
from lab import checker, guest, qemu
from lab.host import footprint
from lab.ram import HugePages
from support import OK, VM, await_that, ctl

_GUEST = guest.Parameters(files_mib=32, check_mib=64)
_MEMORY_MIB = 320
_FOOTPRINT_LIMIT = 64 << 20  # daemon and hook together, beside guest RAM


class Shapes(ByteComparison):
    config = qemu.Config(memory_mib=_MEMORY_MIB, guest=_GUEST)
    fewest_faults = 500

    def test_in_a_memfd_that_QEMU_inherits(self):
        self.relocate_and_compare({"ram": "inherited"}, {"ram": "inherited"})

    def test_aligned_to_2_MiB(self):
        self.relocate_and_compare(*[{"ram_options": "align=2M"}] * 2)

    def test_of_two_NUMA_nodes(self):
        self.relocate_and_compare({"nodes": 2}, {"nodes": 2})


class HugePageShapes(ByteComparison):
    config = qemu.Config(memory_mib=_MEMORY_MIB, guest=_GUEST)
    fewest_faults = 20  # of 160 pages

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.huge = {"ram_folder": str(cls.enterClassContext(HugePages(2 * _MEMORY_MIB)).path)}

    def test_in_huge_pages_on_both_hosts(self):
        self.relocate_and_compare(self.huge, self.huge)

    def test_their_reservation_outlives_arming(self):
        with self.stage.vm("a"), self.stage.vm("b", incoming=True, prealloc=True, **self.huge) as b:
            before = unreserved_huge_pages()
            prepared = self.stage.relocate("--prepare-only")
            self.assertEqual(prepared.code, OK, prepared.message)
            self.assertEqual(unreserved_huge_pages(), before)
            self.assertEqual(ctl(self.stage.hosts["a"], "cancel", VM).code, OK)
            self.assertTrue(b.running())

    def test_from_small_pages_into_huge_ones(self):
        self.relocate_and_compare({}, self.huge)

    def test_from_huge_pages_into_small_ones(self):
        self.relocate_and_compare(self.huge, {})

    def test_a_running_guest_there_and_back(self):
        stage = self.stage
        for host in "ab":
            stage.network.shape(host, 2000)
        with stage.vm("a", **self.huge) as first:
            first.wait_ready()
            with stage.vm("b", incoming=True, **self.huge):
                self.hop("a", "b")
                first.wait_exit()
                first.__exit__()  # its huge pages go back
                with stage.vm("a", incoming=True, **self.huge) as last:
                    self.hop("b", "a")
                    self.assertEqual(last.qmp.command("query-status")["status"], "running")
                    status = checker.wait_full_passes(stage.network, _GUEST.address, 1)
                    self.assertEqual(status.errors, 0)

    def hop(self, source, destination):
        ended = self.stage.relocate(source=source, destination=destination)
        self.assertEqual(ended.code, OK, ended.message)
        print(f"{source} -> {destination}: {ended.answer['faults']} faults, "
              f"p50 {ended.answer['fault_p50_us']:.0f} us, "
              f"downtime {ended.answer['downtime_ms']:.1f} ms")


def unreserved_huge_pages():
    """Pages of the machine's pool that the next VM could have."""
    text = pathlib.Path("/proc/meminfo").read_text()
    free, reserved = (int(re.search(rf"HugePages_{which}:\s+(\d+)", text)[1])
                      for which in ("Free", "Rsvd"))
    return free - reserved


class AddedMemory(ByteComparison):
    added_mib = 256
    config = qemu.Config(memory_mib=_MEMORY_MIB, added_mib=added_mib, guest=guest.Parameters(
        files_mib=32, check_mib=64, churn_mib=48, kernel_words="memhp_default_state=online"))
    fewest_faults = 500

    def test_that_was_added_to_the_running_guest(self):
        folder = self.stage.folder
        added = {host: pathlib.Path(f"/dev/shm/{folder.name}-{host}.added") for host in "ab"}
        for path in added.values():
            self.addCleanup(path.unlink, missing_ok=True)

        def add(vm):
            vm.qmp.command("object-add", **{
                "qom-type": "memory-backend-file", "id": "added", "size": self.added_mib << 20,
                "mem-path": str(added["a"]), "share": True})
            vm.qmp.command("device_add", driver="pc-dimm", id="dimm0", memdev="added")
            vm.ram_paths.append(added["a"])
            await_that("the guest uses the memory added",
                       lambda: added["a"].stat().st_blocks * 512 > 32 << 20)

        self.relocate_and_compare({}, {"extra": (
            "-object", f"memory-backend-file,id=added,size={self.added_mib}M,"
                       f"mem-path={added['b']},share=on",
            "-device", "pc-dimm,id=dimm0,memdev=added")}, once_ready=add)


class Footprint(threading.Thread):
    """The most that a process has used at a time: private memory and page tables, in bytes."""

    def __init__(self, pid):
        super().__init__(daemon=True)
        self._pid, self._ended = pid, threading.Event()
        self.most = 0
        self.start()

    def run(self):
        while not self._ended.wait(0.02):
            self.most = max(self.most, footprint(self._pid))

    def end(self):
        self._ended.set()
        self.join()
        return self.most


def settled_footprint(pid):
    """Once it has not changed for half a second."""
    seen, since = footprint(pid), time.monotonic()
    while time.monotonic() < since + 0.5:
        time.sleep(0.05)
        if (now := footprint(pid)) != seen:
            seen, since = now, time.monotonic()
    return seen


class RunningGuest(support.StageTest):
    """Relocates a guest while it runs, and measures."""

    def relocate(self):
        stage = self.stage
        with stage.vm("b", hook="", incoming=True) as unhooked:
            hook = -settled_footprint(unhooked.pid)
        with stage.vm("a") as a, stage.vm("b", incoming=True) as b:
            hook += settled_footprint(b.pid)
            a.wait_ready()
            has_data = a.ram_path.stat().st_blocks * 512
            daemons = [Footprint(host.pid) for host in stage.hosts.values()]
            sent_before = stage.network.bytes_sent("a")
            ended = stage.relocate()
            most = [daemon.end() for daemon in daemons]
            self.assertEqual(ended.code, OK, ended.message)
            moved = stage.network.bytes_sent("a") - sent_before
            taken = b.ram_path.stat().st_blocks * 512
            status = checker.wait_full_passes(stage.network, self.config.guest.address, 1)
            self.assertEqual(status.errors, 0)
        print(f"{self.config.memory_mib} MiB of RAM, {has_data >> 20} MiB with data: "
              f"{taken >> 20} MiB at the destination, "
              f"{moved >> 20} MiB moved in {ended.answer['elapsed_ms']:.0f} ms, "
              f"downtime {ended.answer['downtime_ms']:.1f} ms, {ended.answer['faults']} faults; beside "
              f"guest RAM: {most[0] / 2**20:.1f} MiB source's daemon, {most[1] / 2**20:.1f} MiB "
              f"destination's, {hook / 2**20:.1f} MiB hook")
        for daemon in most:
            self.assertLess(daemon + max(hook, 0), _FOOTPRINT_LIMIT)
        return has_data, taken


class AboveFourGiB(RunningGuest):
    config = qemu.Config(memory_mib=5120, guest=_GUEST)

    def test_on_both_sides_of_the_hole_below_4_GiB(self):
        self.relocate()


class Sparse(RunningGuest):
    config = qemu.Config(memory_mib=64 << 10, guest=guest.Parameters(
        files_mib=32, check_mib=64, kernel_words="mem=2G"))

    def test_64_GiB_of_which_little_is_used(self):
        has_data, taken = self.relocate()
        # The guest goes on, and touches more; but not what it never had.
        self.assertLess(taken, has_data + (256 << 20))


if __name__ == "__main__":
    support.main()
