"""How much processor time processes take while something happens, beside what they take anyway.

Samples /proc from a thread of its own; a process that ends keeps its last sample. Clock ticks (10 ms)
are the unit of the kernel's figures.
"""

import os
import pathlib
import threading
import time

_EVERY_S = 0.1
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class Meter:
    """A context manager: samples while the block lasts. For one thread.

    `processes` are pairs (pid, threads of it that do not count: a QEMU's vCPUs, say).
    """

    def __init__(self, processes):
        self._processes = list(processes)
        self._last = [0.0] * len(self._processes)
        self._samples = []  # (time since the epoch, seconds of all processes so far)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def cost_s(self, start, end, idle_s=4.0):
        """Seconds of processors between the two moments (since the epoch), less what the `idle_s`
        before `start` have taken in the same time. ValueError if it was not sampled so long."""
        if not self._samples or self._samples[0][0] > start - idle_s:
            raise ValueError(f"{idle_s} s before the start were not sampled")
        idle_rate = (self._at(start) - self._at(start - idle_s)) / idle_s
        return self._at(end) - self._at(start) - idle_rate * (end - start)

    def _at(self, moment):
        """The seconds so far at a moment, between two samples in proportion."""
        before = max((each for each in self._samples if each[0] <= moment))
        after = min((each for each in self._samples if each[0] > moment), default=before)
        if after[0] == before[0]:
            return before[1]
        share = (moment - before[0]) / (after[0] - before[0])
        return before[1] + share * (after[1] - before[1])

    def _run(self):
        while not self._ended.wait(_EVERY_S):
            self._sample()

    def _sample(self):
        for i, (pid, threads) in enumerate(self._processes):
            try:
                self._last[i] = _ticks(f"/proc/{pid}") - sum(
                    _ticks(f"/proc/{pid}/task/{thread}") for thread in threads)
            except OSError:
                pass  # it has ended
        self._samples.append((time.time(), sum(self._last) * _TICK_S))


def _ticks(folder):
    fields = pathlib.Path(folder, "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def vcpu_threads(vm):
    """The threads of a lab Vm that run its guest."""
    return [cpu["thread-id"] for cpu in vm.qmp.command("query-cpus-fast")]
