"""Watches QEMUs: whether and when each runs its guest, and whether two ever did so at once.

Not by sampling: QEMU stamps STOP and RESUME itself. Only where a process is killed while its guest
runs, the end of that run is the last time it answered "running".
"""

import dataclasses
import threading
import time

from .commands import LabError
from .qmp import Qmp, QmpTimeout

_EVERY_S = 0.004


@dataclasses.dataclass(frozen=True)
class Run:
    """A span of time in which a guest ran; seconds since the epoch."""

    start: float
    end: float


class QemuWatch(threading.Thread):
    """One QEMU, from the constructor to finish() or its end. It is asked for its state every `every_s`
    seconds; its events are seen as they come."""

    def __init__(self, vm, every_s=_EVERY_S):
        super().__init__(daemon=True)
        self._every_s = every_s
        self._qmp = Qmp(vm.watch_path)
        self._ending = threading.Event()
        self._samples = [self._sample()]
        self.start()

    @property
    def status(self):
        """The run state that was seen last."""
        return self._samples[-1][1]

    def last(self, name):
        """When QEMU raised the newest event of that name; 0: it never has."""
        events = list(self._qmp.events)  # the interpreter copies it in one go, while the watch adds to it
        return next((event.time for event in reversed(events) if event.name == name), 0.0)

    def runs_guest(self):
        """Whether the guest runs there, as far as QEMU has told. Not asked: is the process still there?"""
        if not self.last("RESUME") and not self.last("STOP"):
            return self._samples[0][1] == "running"
        return self.last("RESUME") > self.last("STOP")

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
            try:
                self._await_next()
            except LabError:
                return

    def _await_next(self):
        """Until the next sample is due; reads events meanwhile."""
        due = time.monotonic() + self._every_s
        while not self._ending.is_set() and (left := due - time.monotonic()) > 0:
            self._qmp.await_news(left)

    def _sample(self):
        asked = time.time()  # it was in that state at some time after this
        return asked, self._qmp.command("query-status", timeout_s=2)["status"]

    def _last_seen_running(self):
        return next((when for when, status in reversed(self._samples) if status == "running"), 0.0)


def overlaps(runs_a, runs_b):
    """Pairs of Runs, one of each list, that have time in common."""
    return [(a, b) for a in runs_a for b in runs_b if min(a.end, b.end) > max(a.start, b.start)]
