#!/usr/bin/env python3
"""A VM that is relocated within one host, into another QEMU (a QEMU upgraded in place): one daemon is
both ends, and keeps both ends' records apart when it is killed."""

from signal import SIGKILL

import support
from lab import checker
from support import MISFIT, OK, UNFINISHED, VM, await_that

NEW = "web1-new"


class SameHost(support.StageTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.stage.network.add_tap("a", "tap1")
        cls.stage.save_ready_guest()
        cls.host = cls.stage.hosts["a"]

    def setUp(self):
        self.stage.renew_daemons()
        self.old = self.enterContext(self.stage.ready_vm("a"))

    def relocating(self):
        return self.stage.relocating("--as", NEW, destination="a")

    def records(self):
        return sorted(path.name.split(".", 1)[1] for path in self.host.state_dir.glob("*.json"))

    def assert_arrived(self, new):
        await_that("the old QEMU has been ended", lambda: not self.old.running(), timeout_s=30)
        self.assertEqual(new.qmp.command("query-status")["status"], "running")
        status = checker.wait_full_passes(self.stage.network, self.config.guest.address, 2)
        self.assertEqual(status.errors, 0)

    def test_it_serves_on_in_the_new_qemu(self):
        with self.stage.vm("a", NEW, incoming=True, tap="tap1") as new:
            ended = self.relocating().end()
            self.assertEqual(ended.code, OK, ended.message)
            self.assert_arrived(new)

    def test_the_daemon_is_killed_while_memory_arrives(self):
        self.host.faults = ["delay-bulk=60"]
        self.host.restart()
        self.host.wait_registered(VM)
        with self.stage.vm("a", NEW, incoming=True, tap="tap1") as new:
            relocating = self.relocating()
            await_that("it runs in the new QEMU", lambda: support.ctl(
                self.host, "stats", NEW).answer.get("state") == "running")
            self.assertEqual(self.records(), ["destination.json", "source.json"])
            self.host.kill(SIGKILL)
            self.host.faults = []
            self.host.start()
            self.assertEqual(relocating.end().code, UNFINISHED)
            self.assert_arrived(new)
            for role, vm in (("source", VM), ("destination", NEW)):
                self.assertIn(f"vm {vm}, taken up", self.host.log(), role)

    def test_a_qemu_that_waits_on_the_same_ram_file_is_refused(self):
        same = (("share=on", f"mem-path={self.old.ram_path},share=on"),)
        with self.stage.vm("a", NEW, incoming=True, tap="tap1", edits=same):
            found = support.ctl(self.host, "check", VM, "--as", NEW, "--to", self.host.address)
            self.assertTrue(any(f"is also the memory of VM {VM}" in each["message"]
                                for each in found.answer["findings"]), found.answer)
            ended = self.stage.relocate("--prepare-only", "--as", NEW, destination="a")
            self.assertEqual(ended.code, MISFIT, ended.message)
            self.assertIn(f"is also the memory of VM {VM} (process {self.old.pid})", ended.message)
            status = checker.wait_full_passes(self.stage.network, self.config.guest.address, 2)
            self.assertEqual(status.errors, 0)
            self.assertEqual(self.records(), [])

    def test_a_qemu_that_waits_on_the_ram_file_of_one_without_a_hook_is_refused(self):
        with self.stage.vm("b", register=False, hook="") as stranger:
            same = (("share=on", f"mem-path={stranger.ram_path},share=on"),)
            with self.stage.vm("a", NEW, incoming=True, tap="tap1", edits=same):
                ended = self.stage.relocate("--prepare-only", "--as", NEW, destination="a")
                self.assertEqual(ended.code, MISFIT, ended.message)
                self.assertIn(f"is also mapped by process {stranger.pid}", ended.message)


if __name__ == "__main__":
    support.main()
