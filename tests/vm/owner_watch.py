"""Watches two QEMUs: when each ran its guest, and whether both ever did so at once.

Not by sampling: QEMU stamps STOP and RESUME itself. Only where a process is killed while its guest
runs, the end of that run is the last time it answered "running".
"""

import contextlib
import dataclasses
import threading
import time

import support
from lab import checker
from lab.commands import LabError
from lab.qmp import Qmp, QmpTimeout

_EVERY_S = 0.004
_MORE_S = 1.5  # a destination in doubt asks the source every second


@dataclasses.dataclass(frozen=True)
class Run:
    """A span of time in which a guest ran; seconds since the epoch."""

    start: float
    end: float


class QemuWatch(threading.Thread):
    """One QEMU, from the constructor to finish() or its end."""

    def __init__(self, vm):
        super().__init__(daemon=True)
        self._qmp = Qmp(vm.watch_path)
        self._ending = threading.Event()
        self._samples = [self._sample()]
        self.start()

    @property
    def status(self):
        """The run state that was seen last."""
        return self._samples[-1][1]

    def finish(self):
        """Ends the watch and returns the Runs of the guest, oldest first."""
        self._ending.set()
        self.join(30)
        self._qmp.close()
        events = sorted((event for event in self._qmp.events if event.name in ("STOP", "RESUME")),
                        key=lambda event: event.time)
        first, status = self._samples[0]
        runs, began = [], first if status == "running" else None
        for event in events:
            if event.name == "RESUME" and began is None:
                began = event.time
            elif event.name == "STOP" and began is not None:
                runs.append(Run(began, event.time))
                began = None
        if began is not None:
            runs.append(Run(began, max(began, self._last_seen_running())))
        return runs

    def run(self):
        while not self._ending.is_set():
            try:
                self._samples.append(self._sample())
            except QmpTimeout:
                pass  # its main thread waits for a page
            except LabError:
                return  # it has ended
            time.sleep(_EVERY_S)

    def _sample(self):
        asked = time.time()  # it was in that state at some time after this
        return asked, self._qmp.command("query-status", timeout_s=2)["status"]

    def _last_seen_running(self):
        return next((when for when, status in reversed(self._samples) if status == "running"), 0.0)


def overlaps(runs_a, runs_b):
    """Pairs of Runs, one of each list, that have time in common."""
    return [(a, b) for a in runs_a for b in runs_b if min(a.end, b.end) > max(a.start, b.start)]


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
