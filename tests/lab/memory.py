"""The most memory that a relocation takes beside the guest's own RAM.

Samples /proc from a thread of its own. Of a QEMU counts what is anonymous and not guest RAM nor its
cache of translated guest code, which grows with what the guest runs and not with a relocation; of any
process its page tables.
"""

import pathlib
import re
import threading
import time

from .host import footprint

_EVERY_S = 0.25  # reading a QEMU's mappings takes some 3 ms of a processor a GiB
_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S+) .*\n(?:[A-Z].*\n)*?Anonymous:\s+(\d+) kB", re.M)


class PeakMemory:
    """A context manager: samples while the block lasts. For one thread.

    `qemus` are lab Vms, `daemons` process ids.
    """

    def __init__(self, qemus, daemons):
        self._qemus = [(vm.pid, (vm.config.memory_mib << 20) // vm.config.nodes) for vm in qemus]
        self._daemons = list(daemons)
        self._samples = []  # (time since the epoch, bytes of all processes together)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def peak_bytes(self, start, end):
        """The largest sample between the two moments (since the epoch) and the one before each; None
        if there is none."""
        before = [size for moment, size in self._samples if moment < start][-1:]
        return max([*before, *(size for moment, size in self._samples if start <= moment <= end)],
                   default=None)

    def _run(self):
        while not self._ended.is_set():
            self._sample()
            self._ended.wait(_EVERY_S)

    def _sample(self):
        moment = time.time()
        total = 0
        for pid, ram_bytes in self._qemus:
            total += _or_nothing(beside_guest_ram, pid, ram_bytes)
        for pid in self._daemons:
            total += _or_nothing(footprint, pid)
        self._samples.append((moment, total))


def beside_guest_ram(pid, ram_bytes):
    """What a QEMU uses for itself, in bytes; `ram_bytes` is the size of one of its RAM blocks. OSError if
    it has ended."""
    folder = pathlib.Path(f"/proc/{pid}")
    tables = int(re.search(r"^VmPTE:\s+(\d+) kB", (folder / "status").read_text(), re.M)[1]) << 10
    return tables + own_bytes((folder / "smaps").read_text(), ram_bytes)


def own_bytes(smaps, ram_bytes):
    """The anonymous memory in a QEMU's smaps that is neither guest RAM nor translated code."""
    return sum(int(anonymous) << 10 for first, last, access, anonymous in _MAPPING.findall(smaps)
               if int(last, 16) - int(first, 16) != ram_bytes and access[:3] != "rwx")


def _or_nothing(read, *arguments):
    try:
        return read(*arguments)
    except (OSError, TypeError):  # it has ended; a zombie has no sizes
        return 0
