"""Does to a stage what the schedule says, and undoes it when its time is over.

Whether a daemon or a QEMU that is killed is one that the switch still depends on must not be left to
chance: it is looked up while whoever could change it is stopped. Not responsible for when (player.py).
"""

import collections
import pathlib
import re
import signal
import time

import schedule
from lab.commands import LabError
from lab.postcopyctl import Background
from lab.qmp import QmpTimeout
from lab.two_hosts import VM

_MONITOR_TIMEOUT_S = 0.3
_RESUME_AGAIN_S = 0.2
_RESUMED_S = 120  # longer than any disturbance of an attempt


class Missed(Exception):
    """It could not be injected; the text says why."""


class Injector:
    """`agenda` takes what is to be undone; `without` kinds are not injected, not even by chance. For one
    thread."""

    def __init__(self, stage, agenda, without=()):
        self._stage, self._agenda, self._without = stage, agenda, frozenset(without)
        self._down = collections.Counter()     # reasons for which a host's link is down
        self._stalled = collections.Counter()  # reasons for which a host's daemon is stopped
        self._cancelling = []
        self.absent = set()  # hosts whose daemon was killed and is not started yet
        self.mbit = 0        # of each link now; 0: not limited
        self._do = {schedule.CUTS: self._cut, schedule.FLAPS: self._flap, schedule.SHAPES: self._shape,
                    schedule.RESETS: self._reset, schedule.DAEMON_KILLS: self._kill_daemon,
                    schedule.ARRIVING_KILLS: self._kill_daemon, schedule.DAEMON_STALLS: self._stall,
                    schedule.VMM_KILLS: self._kill_waiting, schedule.BALLOONS: self._balloon,
                    schedule.CANCELS: self._cancel, schedule.PAUSES: self._pause,
                    schedule.FOREIGN_CONTS: self._foreign_cont,
                    schedule.SOURCE_ENDS: self._end_source}

    def inject(self, injection, attempt):
        """Injects it now, into that Attempt. Returns of which kind it turned out to be: a daemon that was
        to be killed before the switch may be too late for that. Missed if it could not be done."""
        return self._do[injection.kind](injection, attempt) or injection.kind

    def shape(self, mbit):
        """Both hosts' links have so many Mbit/s from now on; 0: no limit."""
        self.mbit = mbit
        for host in self._stage.hosts:
            if mbit:
                self._stage.network.shape(host, mbit)
            else:
                self._stage.network.unshape(host)

    def reap(self):
        """Takes note of cancels that have ended; whether one is still under way."""
        self._cancelling = [each for each in self._cancelling if each.running()]
        return bool(self._cancelling)

    def _cut(self, injection, attempt):
        host = attempt.side(injection.side).host.name
        self._take_down(host)
        self._agenda.disturb((injection.seconds, lambda: self._bring_up(host)))

    def _flap(self, injection, attempt):
        host, moment, steps = attempt.side(injection.side).host.name, 0.0, []
        for down_s, up_s in injection.pulses:
            steps.append((moment, lambda: self._take_down(host)))
            steps.append((moment + down_s, lambda: self._bring_up(host)))
            moment += down_s + up_s
        self._agenda.disturb(*steps)

    def _take_down(self, host):
        self._down[host] += 1
        self._stage.network.cut(host)

    def _bring_up(self, host):
        self._down[host] -= 1
        if not self._down[host]:
            self._stage.network.restore(host)

    def _shape(self, injection, _attempt):
        self.shape(injection.mbit)
        self._agenda.disturb()

    def _reset(self, injection, attempt):
        if not self._stage.network.reset(attempt.side(injection.side).host.name):
            raise Missed("there was no connection")
        self._agenda.disturb()

    def _kill_daemon(self, injection, attempt):
        host = attempt.side(injection.side).host
        self._require_daemon(host)
        self._stop(host)
        kind = schedule.ARRIVING_KILLS if attempt.handed_over() else schedule.DAEMON_KILLS
        if kind in self._without:
            self._go_on(host)
            raise Missed(f"it would be one of the {kind}")
        host.kill()
        self._stalled[host.name] -= 1
        self.absent.add(host.name)

        def launch():
            host.launch()
            self.absent.remove(host.name)
        self._agenda.disturb((injection.seconds, launch))
        return kind

    def _stall(self, injection, attempt):
        host = attempt.side(injection.side).host
        self._require_daemon(host)
        self._stop(host)
        self._agenda.disturb((injection.seconds, lambda: self._go_on(host)))

    def _kill_waiting(self, _injection, attempt):
        side = attempt.destination
        if not side.vm.running():
            raise Missed("it had ended")
        self._stop(side.host)  # who is about to become the owner does so before, or finds it dead
        try:
            if attempt.owned():
                raise Missed("it was the owner's already")
            side.vm.kill()
        finally:
            self._go_on(side.host)
        self._agenda.disturb()

    def _require_daemon(self, host):
        if host.name in self.absent:
            raise Missed("the daemon was not there")

    def _stop(self, host, timeout_s=1):
        """Stops the daemon, if there is one; none of its threads runs afterwards."""
        self._stalled[host.name] += 1
        if not host.running():
            return
        host.kill(signal.SIGSTOP)
        deadline = time.monotonic() + timeout_s
        while not _is_stopped(host.pid):
            if time.monotonic() > deadline:
                raise LabError(f"stop the daemon of host {host.name}: it runs on")
            time.sleep(0.0002)

    def _go_on(self, host):
        self._stalled[host.name] -= 1
        if self._stalled[host.name] <= 0:
            host.kill(signal.SIGCONT)

    def _balloon(self, injection, attempt):
        side = attempt.destination if attempt.destination.runs_guest() else attempt.source
        if not side.runs_guest():
            raise Missed("the guest did not run")
        self._command(side, "balloon", value=injection.mib << 20)
        self._agenda.disturb()

    def _pause(self, injection, attempt):
        side = attempt.destination if attempt.destination.runs_guest() else attempt.source
        if not side.runs_guest():
            raise Missed("the guest did not run")
        self._command(side, "stop")
        limit = time.monotonic() + injection.seconds + _RESUMED_S
        self._agenda.disturb((injection.seconds, lambda: self._resume(attempt, limit)))

    def _resume(self, attempt, limit):
        """Lets a paused guest run where it is; where that is not certain yet, or its QEMU waits for a page,
        a little later, until `limit`. At the source its daemon is stopped meanwhile: the guest must not leave just then."""
        host = attempt.source.host
        self._stop(host)
        try:
            side = attempt.destination if attempt.owned() else attempt.source
            if not side.vm.running():
                return  # the attempt is over, or the player finds out
            # By its monitor: a QEMU that waits for a page has perhaps not read the `stop` yet, and still runs.
            status = self._status(side)
            if status == "running":
                return
            if status == "paused" and (side is attempt.destination or self._stays(side)):
                side.monitor.command("cont", timeout_s=_MONITOR_TIMEOUT_S)
                return
        except LabError:  # no answer: it waits for a page
            pass
        finally:
            self._go_on(host)
        if time.monotonic() > limit:
            raise LabError("the guest that was paused could not be resumed")
        self._agenda.disturb((_RESUME_AGAIN_S, lambda: self._resume(attempt, limit)))

    @staticmethod
    def _status(side):
        return side.monitor.command("query-status", timeout_s=_MONITOR_TIMEOUT_S)["status"]

    @staticmethod
    def _stays(side):
        """Whether no migration of the guest, which is paused, is under way at its source. Completed is that
        by which it came: one that left would not be paused, but postmigrate."""
        migration = side.monitor.command("query-migrate", timeout_s=_MONITOR_TIMEOUT_S)
        return migration.get("status", "none") in ("none", "cancelled", "failed", "completed")

    @staticmethod
    def _command(side, name, **arguments):
        try:
            side.monitor.command(name, timeout_s=_MONITOR_TIMEOUT_S, **arguments)
        except QmpTimeout:
            pass  # QEMU waits for a page, and reads it later
        except LabError as error:
            raise Missed(str(error)) from None

    def _foreign_cont(self, _injection, attempt):
        if not attempt.source.vm.running():
            raise Missed("the source's QEMU had ended")
        attempt.source.foreign_cont_at = time.time()
        try:
            attempt.source.monitor.command("cont", timeout_s=_MONITOR_TIMEOUT_S)
        except LabError:
            pass  # the fence ends it: that is what it is for
        self._agenda.disturb()

    def _end_source(self, _injection, attempt):
        if not attempt.source.vm.running():
            raise Missed("the source's QEMU had ended")
        attempt.source.vm.kill(signal.SIGTERM)
        self._agenda.disturb()

    def _cancel(self, _injection, attempt):
        self._cancelling.append(Background(attempt.source.host, "cancel", VM))
        self._agenda.disturb()


def _is_stopped(pid):
    """Whether no thread of the process runs any more (or it has ended)."""
    try:
        states = [re.search(r"^State:\s+(\S)", (task / "status").read_text(), re.M)[1]
                  for task in pathlib.Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return all(state in "TZX" for state in states)
