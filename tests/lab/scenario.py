"""The relocation that the quickstart shows and benchmarks repeat: two hosts with their daemons, a
guest under load, one move, and what the client and the guest say of it.

Not responsible for printing (the caller's `say`), for building anything, or for what the figures
mean (verdict.py).
"""

import dataclasses
import pathlib
import time

from . import checker, fault_trace, guest, qemu, timeline
from .arms import ARMS
from .commands import LabError
from .memory import PeakMemory
from .meter import Meter, vcpu_threads
from .traffic import traffic_of
from .two_hosts import VM, TwoHosts
from .verdict import figures_of, figures_of_check, verify
from .warm_memory import WarmMemory

_MORE_THAN_GUEST_RAM = 128 << 20  # that a relocation may take of the machine's memory


@dataclasses.dataclass(frozen=True)
class Plan:
    config: qemu.Config = dataclasses.field(default_factory=qemu.Config)
    load: str = "web"           # or "key-value", "touch", "idle", "specweb-banking", …: traffic.py
    connections: int = 8
    think_ms: int = 5
    warm_up_s: float = 6.0      # of load before the command; timeline.base_rate needs 5
    after_commit_s: float = 10.0
    link_mbit: int = 0          # of each host's link, each way; 0: not limited
    round_trip_ms: float = 0    # between the hosts, which are then not limited; 0: no delay
    source_faults: tuple = ()   # fault plans of the source's daemon
    log_level: str = "info"     # of both daemons
    trace: bool = False         # of faults: docs/trace-format.md
    daemon_options: tuple = ()  # more arguments of both daemons
    saved_in: str = ""          # guests are booted once and kept in this folder; "": each boots


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one run has come to. `ok`: memory intact and the client has lost nothing."""

    figures: dict
    windows: list     # of the client's requests; none without such a load
    marks: timeline.Marks
    base: float       # requests per window before the command; None without requests
    complaints: list  # what was not as it should be, a sentence each
    trace: pathlib.Path | None = None  # the file, if plan.trace and the arm knows faults; in the run's folder

    @property
    def ok(self):
        return not self.complaints


def run(plan, programs, folder, say=lambda text: None, arm=ARMS["libpostcopy-tcp"]):
    """Plays the scenario once, moving the guest the way of `arm` (arms.py), and returns its Outcome.
    LabError when it could not be played to its end. `say` is told before each step what comes;
    postcopyctl's progress goes to stderr."""
    parameters = plan.config.guest
    say("making the guest, if that has not been done: Debian's kernel, busybox, nginx, memcached")
    guest.image()
    say("making two hosts and a client, with a daemon on each host")
    traces = pathlib.Path(folder) / "traces"
    options = (*plan.daemon_options, *(("--trace-folder", traces) if plan.trace else ()))
    with TwoHosts(programs, folder, plan.config, plan.source_faults, plan.log_level,
                  options, plan.saved_in) as stage:
        say(f"{'loading' if plan.saved_in else 'booting'} the guest on host a: "
            f"{plan.config.memory_mib} MiB of RAM, {parameters.files_mib} MiB of files, "
            f"{parameters.check_mib} MiB under its memory checker; on host b a QEMU waits")
        if plan.link_mbit:
            for host in stage.hosts:
                stage.network.shape(host, plan.link_mbit)
        if plan.round_trip_ms:
            stage.network.delay(plan.round_trip_ms)
        source, destination = arm.start(stage)
        version = source.qmp.command("query-version")["qemu"]
        began = time.monotonic()
        stage.await_ready(source)
        boot_s = time.monotonic() - began
        arm.await_ready(stage)
        over = f"over {plan.connections} kept-open connections, {plan.think_ms} ms between requests"
        loaded = {"web": f"load {over}", "key-value": f"get and set on a memcached that is filled, {over}",
                  "touch": "touching its memory", "idle": "doing nothing"}
        say(f"the guest was ready after {boot_s:.1f} s; {plan.warm_up_s:g} s of "
            f"{loaded.get(plan.load, f'visitors of its web site, {plan.load}')}")
        with traffic_of(plan, stage, programs) as traffic, \
                Meter(_processes(stage, source, destination)) as meter, \
                PeakMemory((source, destination), (h.pid for h in stage.hosts.values())) as memory:
            touched_bytes = source.touched_bytes()
            warm = WarmMemory(touched_bytes + _MORE_THAN_GUEST_RAM)
            time.sleep(plan.warm_up_s)
            traffic.before()
            say(f"relocating: {arm.command_line(stage)}")
            warm.release()
            moved = arm.relocate(stage, source, destination)
            marks = moved.marks
            status_then = _checker_status(stage)
            say(f"committed; {plan.after_commit_s:g} s more of load, to see the service recover")
            time.sleep(max(0, marks.commit + plan.after_commit_s - time.time()))
            traffic.after()
        say(f"verifying: all {parameters.files} files by SHA-256, two full passes of the checker")
        check = verify(stage, status_then)
        trace = _trace_of(moved, arm, plan, traces) if plan.trace else None
    try:
        cpu_s = meter.cost_s(marks.command, marks.commit)
    except ValueError as error:
        raise LabError(f"measure processor time: {error}") from None
    complaints = [*check.complaints, *traffic.complaints()]
    figures = {
        "arm": arm.name,
        "qemu": f"{version['major']}.{version['minor']}.{version['micro']}",
        **figures_of(moved), **traffic.figures(marks), **figures_of_check(check),
        "ram_bytes": plan.config.memory_mib << 20,
        "touched_bytes": touched_bytes,
        "cpu_s_per_gib": round(cpu_s / touched_bytes * 2**30, 3),
        "memory_peak_bytes": memory.peak_bytes(marks.command, marks.commit),
    }
    return Outcome(figures, traffic.windows, marks, traffic.base, complaints, trace)


def _trace_of(moved, arm, plan, folder, timeout_s=10):
    """The trace of a relocation in `folder`, or None if the arm knows no faults. LabError if the daemon,
    which writes its own after the commit, does not."""
    if moved.waits:
        path = folder / f"{arm.name}.trace"
        fault_trace.write(path, VM, arm.name, {"ram": plan.config.memory_mib << 20}, moved.waits,
                          moved.marks.command, moved.marks.resume)
        return path
    if not arm.writes_trace:
        return None
    deadline = time.monotonic() + timeout_s
    while not (found := list(folder.glob("*.trace"))):
        if time.monotonic() > deadline:
            raise LabError(f"take the trace: no file in {folder} after {timeout_s} s")
        time.sleep(0.05)
    return found[0]


def _processes(stage, source, destination):
    """All that a relocation keeps busy, but for the guest's own work: what meter.py takes."""
    return [*((vm.pid, vcpu_threads(vm)) for vm in (source, destination)),
            *((host.pid, []) for host in stage.hosts.values())]


def _checker_status(stage):
    """The checker's Status now, or None if it does not answer."""
    try:
        return checker.status(stage.network, stage.config.guest.address)
    except LabError:
        return None
