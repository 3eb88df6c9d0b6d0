"""The ways to relocate a guest that are compared: this project's, and QEMU's own migration.

An arm starts the two QEMUs of a stage, moves the guest from host a to host b and says what it saw.
Not responsible for load and verdict (scenario.py, verdict.py).
"""

import dataclasses
import time

from . import qemu_waits
from .commands import LabError, NoEnd
from .timeline import Marks
from .two_hosts import VM

_PORT = 4444                 # of QEMU's own migration
_BANDWIDTH = 10 << 30        # bytes a second: no limit of QEMU's own
LIMIT_S = 120  # a relocation that takes longer has not finished


@dataclasses.dataclass(frozen=True)
class Moved:
    """What one relocation has come to. None: this arm cannot tell."""

    marks: Marks
    bytes_moved: int          # by host a
    after_switch_ms: float    # RESUME to the last page
    faults: int               # pages that the guest had to wait for
    fault_p50_us: float = None   # of these waits
    fault_p99_us: float = None
    fault_p999_us: float = None
    fault_max_us: float = None
    waits: tuple = ()            # each of these, a qemu_waits.Wait; of arms that write no trace
    more: dict = dataclasses.field(default_factory=dict)  # figures that other arms do not have


class Libpostcopy:
    """Hooked QEMUs and this project's daemons, over TCP."""

    name = "libpostcopy-tcp"
    writes_trace = True  # of faults, into the stage's folder, if its daemons have been told to

    def start(self, stage):
        """The source, which boots the guest, and the destination, which waits: two Vms."""
        return stage.start_vm("a"), stage.start_vm("b", incoming=True)

    def await_ready(self, stage):
        """Returns when a relocation could begin."""
        for host in stage.hosts.values():
            host.wait_registered(VM)

    def command_line(self, stage):
        return (f"postcopyctl --daemon {stage.hosts['a'].address} relocate {VM} "
                f"--to {stage.hosts['b'].address}")

    def relocate(self, stage, source, destination):
        """Moves the VM and waits for the commit. STOP and RESUME are QEMU's own events, seen by the lab
        and not by the daemons. LabError if it does not end well, NoEnd if not after LIMIT_S."""
        hosts, network = stage.hosts, stage.network
        monitors = [source.qmp, destination.qmp]  # connected now: events are seen from then on
        sent_before = network.bytes_sent("a")
        command = time.time()
        answer = hosts["a"].ctl_json("relocate", VM, "--to", hosts["b"].address,
                                     timeout_s=LIMIT_S, show_progress=True)
        commit = time.time()
        bytes_moved = network.bytes_sent("a") - sent_before
        stop, resume = (monitor.wait_event(name, after=command).time
                        for monitor, name in zip(monitors, ("STOP", "RESUME")))
        more = {name: answer[name]
                for name in ("data_bytes", "demand_bytes", "bulk_bytes", "zero_pages")}
        return Moved(Marks(command, stop, resume, commit), bytes_moved, answer["after_switch_ms"],
                     answer["faults"], answer["fault_p50_us"], answer["fault_p99_us"],
                     answer["fault_p999_us"], answer["fault_max_us"], more=more)


class QemuMigration:
    """QEMU's own migration, with guest RAM as its users have it, anonymous.

    `postcopy`: it is switched to post-copy as soon as it runs; `capabilities` are QEMU's names of
    what is on besides, on both sides.
    """

    writes_trace = False

    def __init__(self, name, postcopy=False, capabilities=()):
        self.name = name
        self._postcopy = postcopy
        self._capabilities = ["events", *capabilities]
        if postcopy:
            self._capabilities += ["postcopy-ram", "postcopy-blocktime"]

    def start(self, stage):
        plain = {"hook": "", "preload_before": "", "ram": "anon"}
        waiting = ("-incoming", "defer", *qemu_waits.arguments(_waits_path(stage)))
        return stage.start_vm("a", **plain), stage.start_vm("b", extra=waiting, **plain)

    def await_ready(self, stage):
        pass

    def command_line(self, stage):
        return f"migrate tcp:{stage.network.address('b')}:{_PORT}"

    def relocate(self, stage, source, destination):
        address = f"tcp:{stage.network.address('b')}:{_PORT}"
        for vm in (source, destination):
            vm.qmp.command("migrate-set-capabilities", capabilities=[
                {"capability": name, "state": True} for name in self._capabilities])
            vm.qmp.command("migrate-set-parameters", **{"max-bandwidth": _BANDWIDTH})
        destination.qmp.command("migrate-incoming", uri=address)
        sent_before = stage.network.bytes_sent("a")
        command = time.time()
        source.qmp.command("migrate", uri=address)
        if self._postcopy:
            source.qmp.command("migrate-start-postcopy")
        commit = max(_completed(vm, command) for vm in (source, destination))
        bytes_moved = stage.network.bytes_sent("a") - sent_before
        stop = source.qmp.wait_event("STOP", after=command).time
        resume = destination.qmp.wait_event("RESUME", after=command).time
        ram = source.qmp.command("query-migrate")["ram"]
        blocked = destination.qmp.command("query-migrate").get("postcopy-vcpu-blocktime", [])
        waits = qemu_waits.read(_waits_path(stage))
        times_us = sorted(wait.wait_us for wait in waits)
        return Moved(Marks(command, stop, resume, commit), bytes_moved,
                     max(0.0, commit - resume) * 1000, ram.get("postcopy-requests", 0),
                     *(quantile(times_us, share) for share in (0.5, 0.99, 0.999, 1)), tuple(waits),
                     more={"vcpus_blocked_ms": sum(blocked)} if self._postcopy else {})


def quantile(ordered, share):
    """That of a list in ascending order; None if it is empty."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None


def _waits_path(stage):
    """Where the destination's QEMU writes down how long the guest waited for each page."""
    return stage.folder / "waits.log"


def _completed(vm, after):
    """When the migration was complete on that side; LabError if it failed, NoEnd if it does not end."""
    deadline = time.monotonic() + LIMIT_S
    seen = 0
    while time.monotonic() < deadline:
        events = [each for each in vm.qmp.poll_events()
                  if each.name == "MIGRATION" and each.time > after]
        for event in events[seen:]:
            if event.data["status"] == "completed":
                return event.time
            if event.data["status"] in ("failed", "cancelled", "postcopy-paused"):
                raise LabError(f"migrate on host {vm.host}: {event.data['status']}")
        seen = len(events)
        time.sleep(0.02)
    raise NoEnd(f"migrate on host {vm.host}: no end after {LIMIT_S} s")


ARMS = {arm.name: arm for arm in (
    QemuMigration("qemu-precopy"),
    QemuMigration("qemu-postcopy", postcopy=True),
    QemuMigration("qemu-postcopy-preempt", postcopy=True, capabilities=["postcopy-preempt"]),
    Libpostcopy(),
)}
