"""A test case about which of two QEMUs runs the guest: lab/run_watch.py sees whether both ever did."""

import contextlib
import time

import support
from lab import checker
from lab.run_watch import QemuWatch, overlaps

_MORE_S = 1.5  # a destination in doubt asks the source every second


class OwnershipTest(support.StageTest):
    """A test case about a guest that one of two QEMUs runs."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.stage.save_ready_guest()

    @contextlib.contextmanager
    def two_vms(self):
        """The ready guest at host a and a QEMU that waits at host b, by host, under watch."""
        with self.stage.ready_vm("a") as a, self.stage.vm("b", incoming=True) as b:
            self._vms = {"a": a, "b": b}
            self._watches = [QemuWatch(a), QemuWatch(b)]
            yield self._vms

    def check_one_owner(self, runs_at):
        """The guest has never run at both, also not within the next seconds, and in the end it runs
        at `runs_at` (empty: nowhere) with its memory intact."""
        time.sleep(_MORE_S)
        runs = [watch.finish() for watch in self._watches]
        self.assertEqual(overlaps(*runs), [], "the guest ran at both hosts at once")
        self.assertTrue(runs[0], "the watch has not seen the guest run at its source")
        self.assertTrue(runs[1] or runs_at != "b", "nor at its destination")
        running = [host for host, vm in self._vms.items()
                   if vm.running() and vm.qmp.command("query-status")["status"] == "running"]
        self.assertEqual(running, [runs_at] if runs_at else [])
        if runs_at:
            status = checker.wait_full_passes(self.stage.network, self.config.guest.address, 1)
            self.assertEqual(status.errors, 0)
