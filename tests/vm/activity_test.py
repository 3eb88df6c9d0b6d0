#!/usr/bin/env python3
"""What a guest and its host do while the memory arrives: several vCPUs that fault at once, a balloon
that inflates and deflates, free pages that the guest reports, a reboot, RAM that is pushed to swap.

The link is shaped so that there is time for it. The guest's checker finds every wrong word.
"""

import contextlib
import ctypes
import os
import pathlib
import re
import subprocess
import tempfile
import time
import unittest

import support
from lab import checker, guest, qemu
from support import OK, VM, await_that, ctl

_FEWEST_FAULTS = 500     # of each vCPU
_FEWEST_DISCARDS = 1000  # pages
_SLOW_MBIT = 400


class Activity(support.StageTest):
    link_mbit = _SLOW_MBIT

    @contextlib.contextmanager
    def arriving(self, **changes):
        """Boots a guest and relocates it; in the block it runs at the destination, whose Vm is given,
        and its memory arrives. At the block's end all of it has come; then the checker is asked. The
        command's answer is in self.answer from then on."""
        stage = self.stage
        for host in "ab":
            stage.network.shape(host, self.link_mbit)
        with stage.vm("a", **changes) as a, stage.vm("b", incoming=True, **changes) as b:
            a.wait_ready()
            relocating = stage.relocating()
            await_that("the guest runs at the destination", self.is_arriving)
            yield b
            ended = relocating.end(timeout_s=180)
            self.assertEqual(ended.code, OK, ended.message)
            self.answer = ended.answer
            self.check(b)

    def is_arriving(self):
        """Whether the guest runs at the destination and not all of its memory is there."""
        return self.stats().get("state") == "running"

    def assert_still_arriving(self):
        self.assertTrue(self.is_arriving(), "the memory had arrived before all was done")

    def stats(self):
        return ctl(self.stage.hosts["b"], "stats", VM).answer

    def check(self, b):
        for number in range(self.config.guest.checkers):
            status = checker.wait_full_passes(self.stage.network, self.config.guest.address, 1,
                                              checker=number)
            self.assertEqual(status.errors, 0, f"checker {number}, first at "
                                               f"{status.first_error_address}")
        self.assertEqual(b.qmp.command("query-status")["status"], "running")


class ManyCpus(Activity):
    config = qemu.Config(memory_mib=512, guest=guest.Parameters(
        files_mib=0, check_mib=256, check_pause_us=1000, check_order="random"))

    def relocate_with(self, cpus):
        self.stage.config = qemu.dataclasses.replace(
            self.config, smp=cpus, guest=qemu.dataclasses.replace(self.config.guest, checkers=cpus))
        self.config = self.stage.config
        with self.arriving() as b:
            threads = [cpu["thread-id"] for cpu in b.qmp.command("query-cpus-fast")]
            self.assertEqual(len(threads), cpus)
            faults = await_that("each vCPU has waited often enough",
                                lambda: self.enough_faults(b, threads))
            self.assert_still_arriving()
        print(f"{cpus} vCPUs had waited for {', '.join(map(str, faults))} pages each; in all "
              f"{self.answer['faults']} faults, p50 {self.answer['fault_p50_us']:.0f} us")

    def enough_faults(self, b, threads):
        """The faults of each vCPU, once there are enough. A vCPU's thread has some of its own as well, so
        the session's are shared out as the threads' are."""
        of_threads = [page_faults(b.pid, thread) for thread in threads]
        faults = [self.stats()["faults"] * each // sum(of_threads) for each in of_threads]
        return faults if min(faults) >= _FEWEST_FAULTS else None

    def test_two_vCPUs_fault_at_once(self):
        self.relocate_with(2)

    def test_four_vCPUs_fault_at_once(self):
        self.relocate_with(4)


def page_faults(pid, thread):
    stat = pathlib.Path(f"/proc/{pid}/task/{thread}/stat").read_text()
    return int(stat[stat.rindex(")") + 2:].split()[7])


class Discards(Activity):
    """The guest gives up memory while it arrives."""

    link_mbit = 150
    config = qemu.Config(memory_mib=640, guest=guest.Parameters(
        files_mib=64, check_mib=192, churn_mib=96, check_order="random"))

    def assert_discards(self):
        print(f"{self.answer['discarded_pages']} pages given up while {self.answer['faults']} were "
              f"fetched by demand")
        self.assertGreaterEqual(self.answer["discarded_pages"], _FEWEST_DISCARDS)

    def balloon(self, b, mib):
        b.qmp.command("balloon", value=mib << 20)
        await_that(f"the balloon leaves {mib} MiB", lambda: abs(
            (b.qmp.command("query-balloon")["actual"] >> 20) - mib) < 8)

    def test_a_balloon_inflates_and_deflates(self):
        device = ("-device", "virtio-balloon-pci,id=balloon0")
        with self.arriving(extra=device) as b:
            self.balloon(b, 500)
            self.balloon(b, 640)
            self.assert_still_arriving()
        self.assert_discards()

    def test_the_guest_reports_free_pages(self):
        device = ("-device", "virtio-balloon-pci,id=balloon0,free-page-reporting=on")
        with self.arriving(extra=device):
            await_that("free pages are reported",
                       lambda: self.stats()["discarded_pages"] >= _FEWEST_DISCARDS)
            self.assert_still_arriving()
        self.assert_discards()


class Reboot(Activity):
    link_mbit = 250
    config = qemu.Config(memory_mib=512, reboots=True,
                         guest=guest.Parameters(files_mib=128, check_mib=128))

    def test_a_guest_that_reboots_meanwhile(self):
        with self.arriving() as b:
            booted = b.console().count("GUEST READY")
            b.qmp.command("system_reset")
            self.assert_still_arriving()
            b.wait_ready()
        self.assertEqual(booted, 0)
        print(f"{self.answer['faults']} faults, {self.answer['discarded_pages']} pages given up")


class Swap:
    """A context manager: a swap file of the machine, in use while it lasts."""

    def __init__(self, mib):
        self._mib = mib
        self._path = None

    def __enter__(self):
        descriptor, self._path = tempfile.mkstemp(prefix="postcopy-lab-", suffix=".swap",
                                                  dir="/var/tmp")
        os.posix_fallocate(descriptor, 0, self._mib << 20)
        os.close(descriptor)
        for command in (["mkswap", self._path], ["swapon", self._path]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                os.unlink(self._path)
                raise unittest.SkipTest(f"missing: swap ({' '.join(command)}: "
                                        f"{done.stderr.strip()})")
        return self

    def __exit__(self, *_):
        subprocess.run(["swapoff", self._path], check=True)
        os.unlink(self._path)


_MADV_PAGEOUT = 21
_SYS_PROCESS_MADVISE, _SYS_PIDFD_OPEN = 440, 434
_libc = ctypes.CDLL(None, use_errno=True)


class _Iovec(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def page_out(vm):
    """Pushes the VM's RAM out, as a host short of memory does; KiB in swap afterwards."""
    entry = smaps_entry(vm)
    first, last = (int(part, 16) for part in entry.split(maxsplit=1)[0].split("-"))
    pidfd = _libc.syscall(_SYS_PIDFD_OPEN, vm.pid, 0)
    try:
        step = 64 << 20
        for address in range(first, last, step):
            part = _Iovec(address, min(step, last - address))
            if _libc.syscall(_SYS_PROCESS_MADVISE, pidfd, ctypes.byref(part), 1, _MADV_PAGEOUT,
                             0) < 0:
                raise OSError(ctypes.get_errno(), "page guest RAM out")
    finally:
        os.close(pidfd)
    return int(re.search(r"^Swap:\s+(\d+) kB", smaps_entry(vm), re.M)[1])


def smaps_entry(vm):
    """What the kernel says of QEMU's mapping of guest RAM."""
    smaps = pathlib.Path(f"/proc/{vm.pid}/smaps").read_text()
    return next(each for each in re.split(r"\n(?=[0-9a-f]+-[0-9a-f]+ )", smaps)
                if str(vm.ram_path) in each.splitlines()[0])


class PagedOut(Activity):
    config = qemu.Config(memory_mib=512, guest=guest.Parameters(
        files_mib=64, check_mib=192, check_order="random"))

    def test_RAM_pushed_to_swap_on_either_host(self):
        with Swap(768):
            for host in "ab":
                self.stage.network.shape(host, self.link_mbit)
            with self.stage.vm("a") as a, self.stage.vm("b", incoming=True) as b:
                a.wait_ready()
                at_source = page_out(a)
                relocating = self.stage.relocating()
                await_that("the guest runs at the destination", self.is_arriving)
                at_destination = await_that("RAM is in swap", lambda: self.paged_out(b))
                self.assert_still_arriving()
                ended = relocating.end()
                self.assertEqual(ended.code, OK, ended.message)
                self.check(b)
        print(f"in swap: {at_source >> 10} MiB before, {at_destination >> 10} MiB while it arrived; "
              f"{ended.answer['faults']} faults")
        self.assertGreater(at_source, 8 << 10)

    def paged_out(self, b):
        in_swap = page_out(b)
        return in_swap if in_swap > 8 << 10 else None


if __name__ == "__main__":
    support.main()
