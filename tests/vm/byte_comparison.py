"""A relocation of a guest that its operator has paused: it stays paused at the destination, so both
sides' RAM can be compared as a whole, while a part of its pages is asked for on demand.

For tests that differ in what guest RAM is made of.
"""

import os
import random
import time

import guest_memory
import support
from guest_memory import PAGE
from lab import checker, userfault
from support import OK, VM

_SEED = 20100517
_LINK_MBIT = 500  # so that the bulk does not have it all before the first page is asked for


class ByteComparison(support.StageTest):
    fewest_faults = 1000

    def relocate_and_compare(self, source_changes, destination_changes, once_ready=None):
        """Boots a guest, calls `once_ready` with its Vm, relocates it, compares, lets it go on; how many
        bytes of its RAM had data."""
        stage = self.stage
        for host in "ab":
            stage.network.shape(host, _LINK_MBIT)
        with stage.vm("a", **source_changes) as a, \
                stage.vm("b", incoming=True, **destination_changes) as b:
            a.wait_ready()
            if once_ready:
                once_ready(a)
            a.qmp.command("stop")
            sent = self.hashes_of_files(a)
            has_data = sum(os.stat(path).st_blocks * 512 for path in a.ram_paths)
            began = time.monotonic()
            relocating = stage.relocating("--keep-source")
            arriving = support.await_that(
                "the destination's memory arrives",
                lambda: self.arriving(b) and userfault.registered(b.pid))
            asked_for = self.ask_for_half(b, arriving)
            ended = relocating.end()
            self.assertEqual(ended.code, OK, ended.message)
            seconds = time.monotonic() - began

            size = sum(each for _, each in arriving)
            self.assertEqual(size, sum(os.stat(path).st_size for path in a.ram_paths))
            self.assertEqual(userfault.registered(b.pid), [], "still registered after commit")
            arrived = sorted(guest_memory.sha256(b.pid, *block) for block in arriving)
            self.assertEqual(arrived, sent)
            self.assertEqual(self.hashes_of_files(a), sent, "the source's RAM changed")
            self.assertNotEqual(b.qmp.command("query-status")["status"], "running")
            print(f"{size >> 20} MiB, {has_data >> 20} MiB with data, equal by SHA-256 after "
                  f"{seconds:.1f} s; {asked_for} pages asked for, {ended.answer['faults']} of "
                  f"them before the bulk had brought them, p50 {ended.answer['fault_p50_us']:.0f} "
                  f"us, {ended.answer['zero_pages']} zero pages")
            self.assertGreater(ended.answer["faults"], self.fewest_faults)
            self.check_lives_on(a, b)
            return has_data

    def hashes_of_files(self, vm):
        return sorted(map(guest_memory.file_sha256, vm.ram_paths))

    def ask_for_half(self, b, blocks):
        """A random half of all pages, holes included; how many that are."""
        asked_for = 0
        touchers = []
        for address, size in blocks:
            pages = random.Random(_SEED).sample(range(size // PAGE), size // PAGE // 2)
            touchers.append(guest_memory.Toucher(b.pid, address, pages))
            asked_for += len(pages)
        for toucher in touchers:
            toucher.join()
        return asked_for

    def arriving(self, b):
        """Whether the destination owns the VM: all that is missing is on its way."""
        stats = support.ctl(self.stage.hosts["b"], "stats", VM)
        return b.running() and stats.answer.get("state") in ("running", "committed")

    def check_lives_on(self, a, b):
        """The guest goes on from there, once its operator says so."""
        self.assertEqual(support.ctl(self.stage.hosts["a"], "release", VM).code, OK)
        a.wait_exit()
        b.qmp.command("cont")
        status = checker.wait_full_passes(self.stage.network, self.config.guest.address, 1)
        self.assertEqual(status.errors, 0)
