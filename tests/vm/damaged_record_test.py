#!/usr/bin/env python3
"""Records that are damaged or removed while memory arrives: the VM loses nothing, and what can't be
known is told together with the process that must not be ended."""

from signal import SIGKILL

import support
from lab import checker
from support import OK, VM, await_that


class DamagedRecord(support.StageTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.stage.save_ready_guest()

    def setUp(self):
        self.stage.renew_daemons(b=["delay-bulk=60"])
        self.host_a, self.host_b = self.stage.hosts["a"], self.stage.hosts["b"]
        self.a = self.enterContext(self.stage.ready_vm("a"))
        self.b = self.enterContext(self.stage.vm("b", incoming=True))
        self.relocating = self.stage.relocating()
        await_that("it runs at the destination", lambda: support.ctl(
            self.host_b, "stats", VM).answer.get("state") == "running")
        self.host_b.faults = []

    def record(self, host):
        path, = host.state_dir.glob("*.json")
        return path

    def recover(self, host):
        return support.ctl(host, "recover", VM).answer

    def restart(self, *hosts):
        for host in hosts:
            host.kill(SIGKILL)
        for host in hosts:
            host.start()

    def assert_arrives(self):
        await_that("the source has been let go", lambda: not self.a.running(), timeout_s=60)
        self.assertEqual(self.b.qmp.command("query-status")["status"], "running")
        status = checker.wait_full_passes(self.stage.network, self.config.guest.address, 2)
        self.assertEqual(status.errors, 0)

    def test_a_damaged_byte_on_both_sides(self):
        for host, at in ((self.host_a, 100), (self.host_b, 5000)):
            path = self.record(host)
            content = bytearray(path.read_bytes())
            content[at] ^= 1
            path.write_bytes(content)
        self.restart(self.host_a, self.host_b)
        for host in (self.host_a, self.host_b):
            self.assertIn("ownership record repaired", host.log())
        self.relocating.end()
        self.assert_arrives()

    def test_the_destination_s_is_removed(self):
        self.record(self.host_b).unlink()
        self.restart(self.host_b)
        self.assertEqual(self.relocating.end().code, OK)
        self.assert_arrives()
        self.assertIn("written again as owner", self.host_b.log())

    def test_the_source_s_is_removed_and_put_back(self):
        path = self.record(self.host_a)
        content = path.read_bytes()
        path.unlink()
        self.restart(self.host_a)
        await_that("its VM has registered",
                   lambda: self.recover(self.host_a).get("owner") == "unknown")
        told = self.recover(self.host_a)
        self.assertIn(f"Do not end process {self.a.pid}", told["report"])
        path.write_bytes(content)
        self.restart(self.host_a)
        self.relocating.end()
        self.assert_arrives()

    def test_both_copies_of_the_destination_s_mark_are_damaged(self):
        path = self.record(self.host_b)
        content = path.read_bytes()
        path.write_bytes(content[:100] + b"!" + content[101:4196] + b"!" + content[4197:])
        self.restart(self.host_b)
        self.assertEqual(self.relocating.end().code, OK)
        self.assert_arrives()
        await_that("it is committed", lambda: b'"committed"' in path.read_bytes())


if __name__ == "__main__":
    support.main()
