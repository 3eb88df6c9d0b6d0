"""What is measured: the arms, the conditions, and the list of runs.

One base point, one factor varied at a time. A new arm is an entry in tests/lab/arms.py, a new condition an
entry here.
"""

import dataclasses
import itertools

from lab import guest, qemu, scenario, traffic


@dataclasses.dataclass(frozen=True)
class Link:
    """Between the hosts: its bandwidth, 0 for no limit, or its round trip, 0 for no delay."""

    mbit: int = 0
    round_trip_ms: float = 0


LINKS = {"unlimited": Link(), "1gbit": Link(mbit=1000), "100mbit": Link(mbit=100),
         "rtt-1ms": Link(round_trip_ms=1), "rtt-10ms": Link(round_trip_ms=10),
         "rtt-50ms": Link(round_trip_ms=50)}
LOADS = ("web", "key-value", "specweb-banking", "specweb-ecommerce", "specweb-support", "touch-random",
         "touch-zipf", "touch-linear", "idle")
TOUCH_MIB = 512
# Memory checked: it verifies, and is no load. 6 MB/s are written, so that pre-copy can end.
CHECKER = {"check_mib": 16, "check_pause_us": 150_000}
FILES_MIB = {1024: 256, 4096: 1536, 8192: 3072}  # by the guest's RAM: what it serves
MEMCACHED_MIB = 256
WEB_DIRS = 16  # of the site that visitors visit
ARMS = ("qemu-precopy", "qemu-postcopy", "qemu-postcopy-preempt", "libpostcopy-tcp")
QUICK_ARMS = ("qemu-precopy", "qemu-postcopy-preempt", "libpostcopy-tcp")
QUICK_LINKS = ("unlimited", "1gbit")
RUNS_AT_BASE, RUNS_ELSEWHERE, RUNS_QUICK = 5, 3, 3
QEMU = "10.0"  # of both hosts and all arms

# For the estimate only: seconds of a run at the base point, and what a condition adds.
_SECONDS_A_RUN = 22
_MORE_SECONDS = {"1gbit": 3, "100mbit": 76, "rtt-1ms": 1, "rtt-10ms": 1, "rtt-50ms": 6,
                 4096: 22, 8192: 52, "key-value": 9, "specweb-banking": -1, "specweb-ecommerce": -2,
                 "specweb-support": -2, "touch-random": -5, "touch-zipf": -5, "touch-linear": -5,
                 "idle": -7}


@dataclasses.dataclass(frozen=True, order=True)
class Point:
    """The conditions of a run; the fields are keys of a result, too."""

    load: str = "web"
    link: str = "unlimited"
    memory_mib: int = 1024
    content: str = "random"

    def __str__(self):
        return f"{self.load}, {self.link}, {self.memory_mib >> 10} GiB, {self.content}"

    @property
    def slug(self):
        return f"{self.load}-{self.link}-{self.memory_mib >> 10}gib-{self.content}"

    def has(self, result):
        """Whether a result was measured under these conditions."""
        return all(result[name] == value for name, value in dataclasses.asdict(self).items())


@dataclasses.dataclass(frozen=True)
class Run:
    point: Point
    arm: str
    number: int

    @property
    def name(self):
        return f"{self.point.slug}-{self.arm}-{self.number}"


BASE = Point()


def runs(points, arms, count=None):
    """The runs in the order in which they are made: the arms of a point alternate. `count` runs an
    arm, or as many as the point deserves."""
    made = []
    for point in points:
        wanted = count or (RUNS_AT_BASE if point == BASE else RUNS_ELSEWHERE)
        made += [Run(point, arm, number)
                 for number, arm in itertools.product(range(1, wanted + 1), arms)]
    return made


def full():
    """The points of a full run."""
    varied = {"link": LINKS, "load": LOADS, "content": ("random", "realistic"),
              "memory_mib": FILES_MIB}
    return list(dict.fromkeys(dataclasses.replace(BASE, **{factor: value})
                              for factor, values in varied.items() for value in values))


def quick():
    """The points of a quick run."""
    return [dataclasses.replace(BASE, link=link) for link in QUICK_LINKS]


def chosen(points, loads, links):
    """Those of `points` that have one of `loads` and one of `links` (None: any). What is named and not
    among them is a point all the same: each named load over each named link."""
    found = [point for point in points
             if point.load in (loads or LOADS) and point.link in (links or LINKS)]
    named = itertools.product(loads or (), links or ())
    return list(dict.fromkeys([*found, *(Point(load, link) for load, link in named)]))


def scenario_of(point, guests):
    """What tests/lab/scenario.py plays under these conditions; in the folder `guests` are the guests that
    have booted."""
    kind, more = point.load, {"files_mib": 64}
    if kind == "key-value":
        more["memcached_mib"] = MEMCACHED_MIB
    elif kind.startswith(traffic.VISITS):
        more["web_dirs"] = WEB_DIRS
    elif kind.startswith("touch-"):
        kind, _, more["touch_order"] = kind.partition("-")
        more["touch_mib"] = TOUCH_MIB
    else:
        more = {"files_mib": FILES_MIB[point.memory_mib], "content": point.content}
    parameters = guest.Parameters(**CHECKER, **more)
    return scenario.Plan(config=qemu.Config(memory_mib=point.memory_mib, guest=parameters),
                         load=kind, saved_in=guests, link_mbit=LINKS[point.link].mbit,
                         round_trip_ms=LINKS[point.link].round_trip_ms, trace=True,
                         after_commit_s=2.0 if kind in ("touch", "idle") else 10.0)


def estimate_s(wanted):
    """Roughly how long these runs take."""
    return sum(_SECONDS_A_RUN + sum(_MORE_SECONDS.get(value, 0)
                                    for value in dataclasses.astuple(run.point))
               for run in wanted)
