"""Guests that are not simply running: what becomes of each event at each moment of a relocation.

The guest goes on from one that has booted once (Rig.save()), with its disk as it was then. Afterwards
at most one QEMU has run it at a time, and it is where the row says, in that state. A guest that still lives
is made to run then, and verifies its memory and its disk.
"""

import support
from lab.commands import await_that
from lab.postcopyctl import ctl
from lab.run_watch import QemuWatch, overlaps
from lab.two_hosts import VM

_IB700_START = 0x443  # writing there arms the watchdog; 0xe: 2 s
_ARRIVAL_MBIT = 150


def _pause(rig, vm):
    vm.qmp.command("stop")


def _suspend(rig, vm):
    rig.tell("echo mem >/sys/power/state")


def _panic(rig, vm):
    rig.tell("echo c >/proc/sysrq-trigger")


def _reboot(rig, vm):
    rig.tell("reboot -f")
    vm.qmp.wait_event("RESET", timeout_s=60)


def _power_off(rig, vm):
    rig.tell("poweroff -f")


def _starve_watchdog(rig, vm):
    rig.tell(f"outb {_IB700_START:#x} 0xe")


# What happens: how it is done in the guest, and the run state that QEMU reports then ("": it has ended).
EVENTS = {
    "is paused": (_pause, "paused"),
    "suspends (S3)": (_suspend, "suspended"),
    "panics": (_panic, "guest-panicked"),
    "reboots": (_reboot, "running"),
    "powers off": (_power_off, ""),
    "starves its watchdog": (_starve_watchdog, "watchdog"),
}


def happens(rig, vm, event):
    """Makes it happen in `vm`, and returns when QEMU says that it has."""
    do, status = EVENTS[event]
    do(rig, vm)
    if status:
        await_that(f"the guest of {vm.host} {event}", lambda: vm.qmp.command(
            "query-status", timeout_s=30)["status"] == status, timeout_s=60)
    else:
        await_that(f"the guest of {vm.host} {event}", lambda: not vm.running(), timeout_s=60)


def play(rig, row):
    """Plays a RunState of the table."""
    MOMENTS[row.moment](rig, row)


class Played:
    """One relocation of the saved guest from a to b; watches who runs it."""

    def __init__(self, rig, row):
        self.rig, self.row = rig, row
        self.a = rig.go_on_at("a")
        self.b = rig.start("b", incoming=True)
        self.vms = {"a": self.a, "b": self.b}
        self.watches = [QemuWatch(self.a), QemuWatch(self.b)]
        for vm in self.vms.values():
            assert vm.qmp  # connected while it is sure to answer

    def event(self, host):
        happens(self.rig, self.vms[host], self.row.event)

    def judge(self, ended):
        """Compares what has come of it with the row."""
        test, row = self.rig.test, self.row
        print(f"    {row.event} {row.moment}: {ended}")
        test.assertEqual(ended.code, row.code, f"{ended.message}\n{support.daemon_words(self.rig.stage)}")
        test.assertIn(row.says, ended.message)
        if row.at:
            wanted = row.status or EVENTS[row.event][1]
            vm = self.vms[row.at]
            await_that(f"the guest is {wanted} at {row.at}", lambda: vm.running() and vm.qmp.command(
                "query-status")["status"] == wanted)
            self.revive(vm, wanted)
        if row.at != "a":
            await_that("the QEMU that the guest has left ends", lambda: not self.a.running())
        runs = [watch.finish() for watch in self.watches]
        test.assertEqual(overlaps(*runs), [], "the guest ran at both hosts at once")
        if not row.at:
            self.rig.check_images()

    def revive(self, vm, status):
        """A guest that can go on does so, and is as it should be."""
        if status in ("paused", "watchdog"):
            vm.qmp.command("cont")
        elif status == "suspended":
            vm.qmp.command("system_wakeup")
        elif status == "guest-panicked":
            return
        if self.row.event == "reboots":
            await_that("the guest has booted", lambda: "GUEST READY" in vm.console(), timeout_s=120)
        self.rig.check(vm, booted=self.row.event == "reboots")


def slow_links(rig):
    """So that memory is still arriving when the event has come."""
    for host in rig.stage.hosts:
        rig.network.shape(host, _ARRIVAL_MBIT)


def fast_links(rig):
    for host in rig.stage.hosts:
        rig.network.unshape(host)


def _before(rig, row):
    played = Played(rig, row)
    played.event("a")
    played.judge(rig.stage.relocate())


def _prepared(rig, row):
    played = Played(rig, row)
    prepared = rig.stage.relocate("--prepare-only")
    rig.test.assertEqual(prepared.code, 0, prepared.message)
    played.event("a")
    played.judge(ctl(rig.stage.hosts["a"], "switch", VM, timeout_s=120))


def _held(step, holder="a", at="a"):
    """What the step's daemon is held at; the event happens at host `at`."""
    def play_held(rig, row):
        rig.stage.renew_daemons(**{holder: [f"hold-at={step}"]})
        rig.test.addCleanup(rig.stage.renew_daemons)
        played = Played(rig, row)
        slow_links(rig)
        relocating = rig.stage.relocating()
        support.wait_held(rig.stage.hosts[holder], step)
        played.event(at)
        support.go_on(rig.stage.hosts[holder], step)
        fast_links(rig)
        played.judge(relocating.end(timeout_s=120))
    return play_held


def _arriving(rig, row):
    played = Played(rig, row)
    slow_links(rig)
    relocating = rig.stage.relocating()
    await_that("memory arrives", lambda: rig.stats("b").get("state") == "running", every_s=0.01)
    played.event("b")
    fast_links(rig)
    played.judge(relocating.end(timeout_s=120))


def _there_and_back(rig, row):
    """Two hops without a change of state between them."""
    played = Played(rig, row)
    played.event("a")
    ended = rig.stage.relocate()
    rig.test.assertEqual(ended.code, 0, ended.message)
    await_that("the first QEMU has ended", lambda: not played.a.running())
    back = Played.__new__(Played)
    back.rig, back.row = rig, row
    back.a, back.b = played.b, rig.start("a", incoming=True)
    back.vms, back.watches = {"a": back.b, "b": back.a}, []
    played.watches[0].finish()
    back.watches = [played.watches[1], QemuWatch(back.b)]
    back.judge(rig.stage.relocate(source="b", destination="a"))


MOMENTS = {
    "before": _before,
    "before, and goes there and back": _there_and_back,
    "when it is prepared": _prepared,
    "before the stop": _held("opened"),
    "after the hand-over": _held("handed-over", at="b"),
    "while memory arrives": _arriving,
}
