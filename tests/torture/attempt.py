"""One attempt at a hop: the command, the two QEMUs, which phase it is in, who has recorded what.

Sees and says; injector.py disturbs it, player.py judges it.
"""

import re
import signal
import time

from lab.postcopyctl import Background
from lab.run_watch import QemuWatch
from lab.two_hosts import VM
from schedule import ARRIVING, PREPARE, SWITCH

_SAMPLE_S = 0.25
_HANDED_OVER = re.compile(r'"mark":\s*"(handed-over|committed)"')
_OWNER = re.compile(r'"mark":\s*"(owner|arrived|committed)"')


class Side:
    """A QEMU on a host, and what it tells: `vm`, `watch`, `host` (the lab's Host)."""

    def __init__(self, stage, name, incoming, disk):
        """`disk` is a GuestDisk."""
        balloon = ("-device", "virtio-balloon-pci,id=balloon0")
        self.host = stage.hosts[name]
        self.vm = stage.start_vm(name, incoming=incoming, extra=(*balloon, *disk.words()))
        self.monitor = self.vm.qmp  # opened while it is sure to answer
        self.watch = QemuWatch(self.vm, _SAMPLE_S)
        self.foreign_cont_at = 0.0  # when somebody said `cont` to it though the guest had left; 0: never

    def runs_guest(self):
        """Whether the guest runs there. Where a foreign `cont` has ended it, it does not."""
        return self.vm.running() and self.watch.runs_guest()

    def end(self):
        """Ends it, if that has not happened, and returns the Runs of its guest."""
        runs = self.watch.finish()
        self.vm.__exit__()  # its RAM file goes now rather than at the end
        if self.foreign_cont_at and self.vm.exit_status == -signal.SIGSEGV:
            # Its vCPUs touched fenced memory before their first instruction: it says RESUME, and is dead.
            runs = [run for run in runs if run.start < self.foreign_cont_at]
        return runs


class Attempt:
    """From the command on. `source` and `destination` are Sides."""

    def __init__(self, source, destination):
        self.source, self.destination = source, destination
        self._known = {side: set(_records(side)) for side in (source, destination)}
        self.begun = time.time()
        self._relocating = Background(source.host, "relocate", VM, "--to", destination.host.address)
        self._ended = None

    def __str__(self):
        return f"{self.source.host.name} -> {self.destination.host.name}"

    def side(self, name):
        return {"source": self.source, "destination": self.destination}[name]

    def command_ended(self):
        """How postcopyctl ended, a postcopyctl.Ended; None: it has not."""
        if self._ended is None and not self._relocating.running():
            self._ended = self._relocating.end()
        return self._ended

    def stopped(self):
        """Whether the guest was ever stopped for it at its source."""
        return self.source.watch.last("STOP") > self.begun

    def phase(self):
        """The phase it is in and when that began (seconds since the epoch), by QEMU's own events. None: the
        guest was stopped, and goes on at the source."""
        resumed = self.destination.watch.last("RESUME")
        if resumed > self.begun:
            return ARRIVING, resumed
        if not self.stopped():
            return PREPARE, self.begun
        stopped = self.source.watch.last("STOP")
        return None if self.source.watch.last("RESUME") > stopped else (SWITCH, stopped)

    def handed_over(self):
        """Whether the source has recorded that the VM is not its own any more: the switch."""
        return self._has_recorded(self.source, _HANDED_OVER)

    def owned(self):
        """Whether the destination has recorded that the VM is its own."""
        return self._has_recorded(self.destination, _OWNER)

    def end(self):
        """Ends the command, if that has not happened."""
        if self.command_ended() is None:
            self._relocating.kill()

    def _has_recorded(self, side, mark):
        return any(mark.search(text) for name, text in _records(side).items()
                   if name not in self._known[side])


def _records(side):
    """The texts of a host's ownership records, by file name."""
    texts = {}
    for path in side.host.state_dir.glob("*.json"):
        try:
            texts[path.name] = path.read_text(errors="replace")
        except FileNotFoundError:  # it was forgotten meanwhile
            pass
    return texts
