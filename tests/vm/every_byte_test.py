#!/usr/bin/env python3
"""Every byte of guest RAM arrives, whichever way it takes.

The source's operator has paused the guest, so it stays paused at the destination, and both sides'
RAM can be compared as a whole. A random half of all pages, holes included, is asked for on demand
while the bulk runs.
"""

import os
import random
import time

import guest_memory
import support
from guest_memory import PAGE
from lab import checker, guest, qemu
from support import OK, VM

_SEED = 20100517
_LINK_MBIT = 500  # so that the bulk does not have it all before the first page is asked for


class EveryByte(support.StageTest):
    config = qemu.Config(memory_mib=512, guest=guest.Parameters(files_mib=128, check_mib=64))

    def relocate_and_compare(self, source_changes, destination_changes):
        stage = self.stage
        for host in "ab":
            stage.network.shape(host, _LINK_MBIT)
        with stage.vm("a", **source_changes) as a, \
                stage.vm("b", incoming=True, **destination_changes) as b:
            a.wait_ready()
            a.qmp.command("stop")
            sent = guest_memory.file_sha256(a.ram_path)
            has_data = os.stat(a.ram_path).st_blocks * 512
            began = time.monotonic()
            relocating = stage.relocating("--keep-source")
            (address, size), = support.await_that(
                "the destination's memory arrives",
                lambda: self.arriving(b) and guest_memory.registered(b.pid))
            pages = random.Random(_SEED).sample(range(size // PAGE), size // PAGE // 2)
            guest_memory.Toucher(b.pid, address, pages).join()
            ended = relocating.end()
            self.assertEqual(ended.code, OK, ended.message)
            seconds = time.monotonic() - began

            self.assertEqual(size, self.config.memory_mib << 20)
            self.assertEqual(guest_memory.registered(b.pid), [], "still registered after commit")
            self.assertEqual(guest_memory.sha256(b.pid, address, size), sent)
            self.assertEqual(guest_memory.file_sha256(a.ram_path), sent, "the source's RAM changed")
            self.assertNotEqual(b.qmp.command("query-status")["status"], "running")
            print(f"{size >> 20} MiB, {has_data >> 20} MiB with data, equal by SHA-256 after "
                  f"{seconds:.1f} s; {len(pages)} pages asked for, {ended.answer['faults']} of "
                  f"them before the bulk had brought them, p50 {ended.answer['fault_p50_us']:.0f} "
                  f"us, {ended.answer['zero_pages']} zero pages")
            self.assertGreater(ended.answer["faults"], 1000)
            self.check_lives_on(a, b)
            return has_data

    def arriving(self, b):
        """Whether the destination owns the VM: all that is missing is on its way."""
        stats = support.ctl(self.stage.hosts["b"], "stats", VM)
        return b.running() and stats.answer.get("state") in ("STATE_RUNNING", "STATE_COMMITTED")

    def check_lives_on(self, a, b):
        """The guest goes on from there, once its operator says so."""
        self.assertEqual(support.ctl(self.stage.hosts["a"], "release", VM).code, OK)
        a.wait_exit()
        b.qmp.command("cont")
        status = checker.wait_full_passes(self.stage.network, self.config.guest.address, 1)
        self.assertEqual(status.errors, 0)

    def test_into_a_sparse_RAM_file(self):
        has_data = self.relocate_and_compare({}, {})
        self.assertLess(has_data, self.config.memory_mib << 20, "the source's file is not sparse")

    def test_into_a_RAM_file_with_prealloc(self):
        self.relocate_and_compare({"prealloc": True}, {"prealloc": True})

    def test_into_anonymous_RAM(self):
        self.relocate_and_compare({}, {"ram": "anon"})


if __name__ == "__main__":
    support.main()
