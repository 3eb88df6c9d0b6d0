"""What is tried with real guests: one row a cell, machine × disks and devices × what happens.

`label` says where a cell runs: CI ("vm"), every night ("guests"), or by hand, with the day on which it was.
docs/operations.md shows the table (table_test.py compares), play.py plays it.
"""

import dataclasses

from lab.disks import Disk
from lab.postcopyctl import MISFIT, NO_SUCH_VM, OK, ROLLED_BACK

CI, NIGHTLY = "vm", "guests"


@dataclasses.dataclass(frozen=True)
class Cell:
    machine: str         # of lab.devices.MACHINES
    disks: tuple = ()    # of lab.disks.Disk
    devices: tuple = ()  # names of lab.devices.DEVICES
    happens: str = "two hops"  # of happenings.HAPPENINGS
    label: str = NIGHTLY
    only: str = ""       # the one QEMU release that it is for; "": each

    @property
    def name(self):
        """A word of letters and underscores, one of a kind."""
        parts = [self.machine, *map(str, self.disks), *self.devices, self.happens]
        return "".join(c if c.isalnum() else "_" for c in "__".join(parts))


_RAW = Disk()
_SIMPLE = (Disk(aio="io_uring", iothread=True),)

_DISKS = [
    # Formats, caches and ways of I/O, each once with either bus.
    Cell("pc", (Disk(), Disk("scsi", "qcow2", "writeback")), label=CI),
    Cell("pc", (Disk(format="qcow2"),)),
    Cell("pc", (Disk(cache="writeback"),)),
    Cell("pc", (Disk(aio="native"),)),
    Cell("pc", (Disk(aio="io_uring", format="qcow2", cache="writeback"),)),
    Cell("pc", (Disk(iothread=True), Disk(format="qcow2", aio="native", iothread=True))),
    Cell("pc", (Disk(iops=150), Disk("scsi", iops=150, iothread=True))),
    Cell("pc", (Disk("scsi"),)),
    Cell("pc", (Disk("scsi", "qcow2", aio="native"),)),
    Cell("pc", (Disk("scsi", aio="io_uring", iothread=True),)),
    Cell("pc", (Disk(drive=True), Disk("scsi", "qcow2", "writeback", drive=True, iops=200))),
    Cell("q35", (Disk(),)),
    Cell("q35, root ports", (Disk(aio="io_uring", iothread=True), Disk("scsi", "qcow2")), label=CI),
]
_DEVICES = [
    Cell("pc", _SIMPLE, ("rng", "serial port", "balloon", "VGA", "usb-tablet")),
    Cell("pc", (), ("net, 2 queues",)),
    Cell("pc", (_RAW,), ("TPM", "virtio-gpu")),
    Cell("q35, root ports", _SIMPLE, ("rng", "serial port", "balloon", "VGA", "virtio-gpu", "usb-tablet", "TPM",
                                      "net, 2 queues")),
    Cell("q35, root ports, OVMF", (_RAW, Disk("scsi", "qcow2")), ("VGA", "rng", "TPM")),
]
_CHANGES = [
    Cell("pc", (_RAW,), happens="vCPUs are added before and meanwhile"),
    Cell("pc", (_RAW,), happens="a dimm is plugged before, and unplugged meanwhile"),
    Cell("pc", (_RAW,), happens="virtio-mem is resized both ways meanwhile"),
]
_PROCESSES = [
    Cell("pc", (_RAW,), happens="QEMU by an ordinary user in a sandbox"),
    Cell("pc", (_RAW,), happens="QEMU with -runas, -chroot and -daemonize"),
]
_NETWORKS = [
    Cell("pc", (_RAW,), happens="hosts with IPv6 only"),
    Cell("pc", (_RAW,), happens="hosts that filter all but ports 7700 and 7701"),
]

CELLS = [*_DISKS, *_DEVICES, *_CHANGES, *_PROCESSES, *_NETWORKS]


@dataclasses.dataclass(frozen=True)
class RunState:
    """What becomes of a guest with a disk that does something at a moment of its relocation: postcopyctl
    ends with `code` and says `says`; the guest is at host `at` ("": it has ended), in `status` ("": the
    one that the event leads to; run_states.EVENTS)."""

    event: str   # of run_states.EVENTS
    moment: str  # of run_states.MOMENTS
    code: int
    at: str
    status: str = ""
    says: str = ""
    label: str = NIGHTLY

    @property
    def name(self):
        return "".join(c if c.isalnum() else "_" for c in f"{self.event}__{self.moment}")


RUN_STATE_CELL = Cell("pc", (_RAW,), ("pvpanic", "watchdog"))  # the guest that they happen to
RUN_STATES = [
    RunState("is paused", "before", OK, "b"),
    RunState("is paused", "before, and goes there and back", OK, "a"),
    RunState("is paused", "when it is prepared", OK, "b"),
    RunState("is paused", "before the stop", OK, "b"),
    RunState("is paused", "after the hand-over", OK, "b"),
    RunState("is paused", "while memory arrives", OK, "b", label=CI),
    RunState("suspends (S3)", "before", MISFIT, "a", says="suspended"),
    RunState("suspends (S3)", "when it is prepared", ROLLED_BACK, "a"),
    RunState("suspends (S3)", "before the stop", ROLLED_BACK, "a"),
    RunState("suspends (S3)", "after the hand-over", OK, "b"),
    RunState("suspends (S3)", "while memory arrives", OK, "b"),
    RunState("panics", "before", MISFIT, "a", says="panicked"),
    RunState("panics", "when it is prepared", ROLLED_BACK, "a"),
    RunState("panics", "before the stop", ROLLED_BACK, "a"),
    RunState("panics", "after the hand-over", OK, "b"),
    RunState("panics", "while memory arrives", OK, "b"),
    RunState("reboots", "before", OK, "b"),
    RunState("reboots", "when it is prepared", OK, "b"),
    RunState("reboots", "before the stop", OK, "b"),
    RunState("reboots", "after the hand-over", OK, "b"),
    RunState("reboots", "while memory arrives", OK, "b"),
    RunState("powers off", "before", NO_SUCH_VM, ""),
    RunState("powers off", "when it is prepared", ROLLED_BACK, ""),
    RunState("powers off", "before the stop", ROLLED_BACK, ""),
    RunState("powers off", "after the hand-over", OK, ""),
    RunState("powers off", "while memory arrives", OK, ""),
    RunState("starves its watchdog", "before", MISFIT, "a", says="watchdog"),
    RunState("starves its watchdog", "when it is prepared", ROLLED_BACK, "a"),
    RunState("starves its watchdog", "before the stop", ROLLED_BACK, "a"),
    RunState("starves its watchdog", "after the hand-over", OK, "b"),
    RunState("starves its watchdog", "while memory arrives", OK, "b"),
]
