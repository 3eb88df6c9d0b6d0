#!/usr/bin/env python3
"""A daemon that ends and comes back: its VMs serve on, register again, and can be relocated."""

from signal import SIGKILL, SIGTERM

import support
from lab import checker
from support import OK, ROLLED_BACK, VM


class DaemonRestart(support.StageTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.stage.save_ready_guest()

    def setUp(self):
        self.a = self.enterContext(self.stage.ready_vm("a"))
        self.b = self.enterContext(self.stage.vm("b", incoming=True))

    def end_and_start(self, **signals):
        """Ends daemons with a signal each (a=SIGTERM), sees the guest serve on without them, starts
        them again; returns when their VMs have registered."""
        hosts = [self.stage.hosts[name] for name in signals]
        for host in hosts:
            host.kill(signals[host.name])
            host.process.wait(15)
        before = checker.status(self.stage.network, self.config.guest.address)
        after = checker.wait_full_passes(self.stage.network, self.config.guest.address, 1)
        self.assertGreater(after.passes, before.passes)
        self.assertEqual(self.a.qmp.command("query-status")["status"], "running")
        for host in hosts:
            host.start()
        for host in hosts:
            self.assertEqual(host.wait_registered(VM)["pid"],
                             (self.a if host.name == "a" else self.b).pid)

    def prepare(self):
        self.assertEqual(self.stage.relocate("--prepare-only").code, OK)

    def assert_relocates(self):
        ended = self.stage.relocate()
        self.assertEqual(ended.code, OK, ended.message)
        self.assertEqual(self.b.qmp.command("query-status")["status"], "running")
        status = checker.wait_full_passes(self.stage.network, self.config.guest.address, 1)
        self.assertEqual(status.errors, 0)

    def test_both_end_in_order(self):
        self.end_and_start(a=SIGTERM, b=SIGTERM)
        self.assert_relocates()

    def test_both_are_killed(self):
        self.end_and_start(a=SIGKILL, b=SIGKILL)
        self.assert_relocates()

    def test_both_end_with_a_relocation_prepared(self):
        self.prepare()
        self.end_and_start(a=SIGTERM, b=SIGTERM)
        self.assert_relocates()

    def test_both_are_killed_with_a_relocation_prepared(self):
        self.prepare()
        self.end_and_start(a=SIGKILL, b=SIGKILL)
        self.assert_relocates()

    def test_the_source_s_is_killed_with_a_relocation_prepared(self):
        self.prepare()
        self.end_and_start(a=SIGKILL)
        support.await_that("the destination has given up", lambda: support.ctl(
            self.stage.hosts["b"], "stats", VM).answer.get("state") == "rolled-back")
        self.assert_relocates()

    def test_the_destination_s_is_killed_with_a_relocation_prepared(self):
        self.prepare()
        self.end_and_start(b=SIGKILL)
        ended = support.ctl(self.stage.hosts["a"], "switch", VM)
        self.assertEqual(ended.code, ROLLED_BACK, ended.message)
        self.assert_relocates()


if __name__ == "__main__":
    support.main()
