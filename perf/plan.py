"""What is measured: the arms, the conditions, and the list of runs.

One base point, one factor varied at a time. A new arm is an entry in tests/lab/arms.py, a new condition an
entry here.
"""

import dataclasses
import itertools

from lab import guest, qemu, scenario

LINKS_MBIT = {"unlimited": 0, "1gbit": 1000, "100mbit": 100}
LOADS = ("web", "touch-random", "touch-zipf", "touch-linear", "idle")
TOUCH_MIB = 512
ARMS = ("qemu-precopy", "qemu-postcopy", "qemu-postcopy-preempt", "libpostcopy-tcp")
QUICK_ARMS = ("qemu-precopy", "qemu-postcopy-preempt", "libpostcopy-tcp")
QUICK_LINKS = ("unlimited", "1gbit")
RUNS_AT_BASE, RUNS_ELSEWHERE, RUNS_QUICK = 5, 3, 3
SECONDS_A_RUN = {"unlimited": 32, "1gbit": 36, "100mbit": 75}  # for the estimate only
QEMU = "10.0"  # of both hosts and all arms


@dataclasses.dataclass(frozen=True, order=True)
class Point:
    """The conditions of a run."""

    load: str = "web"
    link: str = "unlimited"

    def __str__(self):
        return f"{self.load}, {self.link}"


@dataclasses.dataclass(frozen=True)
class Run:
    point: Point
    arm: str
    number: int

    @property
    def name(self):
        return f"{self.point.load}-{self.point.link}-{self.arm}-{self.number}"


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
    points = [dataclasses.replace(BASE, link=link) for link in LINKS_MBIT]
    points += [dataclasses.replace(BASE, load=load) for load in LOADS if load != BASE.load]
    return runs(points, ARMS)


def quick():
    return runs([dataclasses.replace(BASE, link=link) for link in QUICK_LINKS], QUICK_ARMS,
                RUNS_QUICK)


def scenario_of(point):
    """What tests/lab/scenario.py plays under these conditions."""
    kind, _, order = point.load.partition("-")
    parameters = guest.Parameters()
    if kind == "touch":
        parameters = guest.Parameters(files_mib=64, check_mib=64, touch_mib=TOUCH_MIB,
                                      touch_order=order)
    return scenario.Plan(config=qemu.Config(guest=parameters), load=kind,
                         link_mbit=LINKS_MBIT[point.link],
                         after_commit_s=10.0 if kind == "web" else 2.0)


def estimate_s(wanted):
    return sum(SECONDS_A_RUN[run.point.link] for run in wanted)
