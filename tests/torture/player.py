"""Plays a torture: a guest under load hops between the two hosts, is disturbed as the schedule says, and
is judged after every attempt.

What is injected and when says schedule.py; how injector.py; what it has come to record.py.
"""

import contextlib
import re
import time

import schedule
from agenda import Agenda
from attempt import Attempt, Side
from disk import DISK, GuestDisk
from injector import Injector, Missed
from lab import checker, guest, load, qemu
from lab.commands import LabError
from lab.disks import names_in_guest
from lab.postcopyctl import CANCELLED, OK, ROLLED_BACK, ctl
from lab.run_watch import overlaps
from lab.two_hosts import VM
from lab.userfault import registered
from lab.verdict import verify
from record import Entry

# discard-data: a QEMU that ends in order empties its RAM file, unless that was switched off before.
CONFIG = qemu.Config(memory_mib=schedule.MOST_MIB, ram_options="discard-data=on", guest=guest.Parameters(
    files_mib=24, check_mib=32, check_pause_us=2000, check_order="random", web_dirs=1, devices=1,
    disks=names_in_guest([DISK])))
RESOLVED_S = 30.0   # an attempt has an outcome so long after its last disturbance has ended, and besides
                    # what its memory takes over the links as they are shaped
_FIRST_MBIT = 500
_TICK_S = 0.002
_LOOK_EVERY_S = 0.25
_AGAIN_S = 0.5      # after an attempt that was refused
_LEFT_OVER_S = 3.0  # a relocation that is prepared stays so for no longer, after the last disturbance
_LET_GO_S = 5.0     # a source's QEMU has gone so long after its memory is there
_REGISTERED_S = 15.0
_ENDED = re.compile(r".*(?:GUEST \w+(?: \w+)? ENDED|Kernel panic|Out of memory|BUG: |Oops: ).*")
_SETTLED = (None, "committed", "rolled-back", "cancelled")


class Fault(Exception):
    """Something is not as it should be, and the torture ends; the text says what was seen."""


class Lost(Fault):
    """The VM is lost, or stuck, or runs twice."""


class Player:
    """`stage` is a TwoHosts with CONFIG, `plan` a Schedule, `record` takes all that comes of it, `say` is
    told a line an attempt. For one thread."""

    def __init__(self, stage, plan, record, without=(), say=print):
        self._stage, self._plan, self._record, self._say = stage, plan, record, say
        self._agenda = Agenda(time.time)
        self._injector = Injector(stage, self._agenda, without)
        self._disk = GuestDisk(stage, CONFIG.guest)
        self._sides = {}  # Side by host: where the guest is, and what waits
        self._runs = {name: [] for name in stage.hosts}
        self._began = time.time()
        self._hop = 0
        self._refused_since = None

    def play(self, seconds):
        """Hops for so long, and to the end of the last attempt; then checks all memory and all that the load
        says. What was not as it should be is in the record afterwards. LabError: it could not begin."""
        with contextlib.ExitStack() as stack:
            at = self._boot()
            loads = [stack.enter_context(each) for each in self._loads()]
            self._began = time.time()
            try:
                self._hop_until(at, self._began + seconds)
                self._check_all(loads)
            except Fault as fault:
                self._record.lost += isinstance(fault, Lost)
                self._record.complaints.append(str(fault))
            except LabError as error:
                self._record.complaints.append(f"hop {self._hop} could not be played: {error}")
            finally:
                self._record.seconds = time.time() - self._began
                self._agenda.finish()

    def _boot(self):
        """Starts the guest on host a; that host's name."""
        self._sides["a"] = Side(self._stage, "a", incoming=False, disk=self._disk)
        self._injector.shape(_FIRST_MBIT)
        self._sides["a"].vm.wait_ready()
        self._stage.network.fix_neighbour(CONFIG.guest.address, CONFIG.mac)
        return "a"

    def _loads(self):
        network, folder = self._stage.network, self._stage.folder
        client = self._stage.programs.load_client
        yield load.Load(network, client, CONFIG.guest, folder / "load.json", connections=2, think_ms=20)
        yield load.Visitors(network, client, CONFIG.guest, folder / "visits.json", "banking", sessions=6,
                            think_ms=500)

    def _hop_until(self, at, end):
        while time.time() < end:
            self._hop += 1
            left = list(self._plan.next_hop())
            to = "b" if at == "a" else "a"
            while time.time() < end:
                if self._attempt(at, to, left) == "committed":
                    at = to
                    break

    def _attempt(self, at, to, left):
        """One attempt at the hop; takes what it injects out of `left`. Its outcome, a word or two."""
        self._make_ready(at, to)
        attempt = Attempt(self._sides[at], self._sides[to])
        seen = len(self._record.entries)
        try:
            outcome = self._watch(attempt, left)
        finally:
            attempt.end()
        self._check_command(attempt, outcome)
        if outcome == "committed":
            self._retire(at)
            for injection in left:
                self._add(attempt, injection.kind, injection, "after it", "the hop was over before")
        self._await_quiet()
        self._check_guest()
        self._record.end_attempt(outcome)
        self._say(self._story(attempt, outcome, self._record.entries[seen:]))
        self._note_refusal(attempt, outcome)
        return outcome

    def _story(self, attempt, outcome, entries):
        """What has happened in an attempt, some lines."""
        ended = attempt.command_ended()
        now = time.time()
        lines = [f"{now - self._began:6.1f} s  hop {self._hop} {attempt}: {outcome} after "
                 f"{now - attempt.begun:.1f} s"]
        lines += [f"{entry.moment}: {entry.text}" for entry in entries if not entry.missed]
        if ended.code != OK:
            lines.append(f"({ended})")
        return "\n          ".join(lines)

    def _make_ready(self, at, to):
        """Returns when a QEMU waits at `to` and both daemons know theirs."""
        if to in self._sides and not self._sides[to].vm.running():
            self._retire(to)
        if to not in self._sides:
            self._sides[to] = Side(self._stage, to, incoming=True, disk=self._disk)
        deadline = time.time() + _REGISTERED_S
        while not all(self._is_registered(name) for name in (at, to)):
            self._check_processes()
            if to not in self._sides or not self._sides[to].vm.running():
                return self._make_ready(at, to)
            if time.time() > deadline:
                raise Lost(f"stuck: {_REGISTERED_S:.0f} s after all was quiet the daemons do not know the "
                           f"VM at both hosts; {self._words()}")
            time.sleep(0.05)
        return None

    def _is_registered(self, name):
        answer = ctl(self._stage.hosts[name], "list").answer
        return any(each["name"] == VM and each["pid"] == self._sides[name].vm.pid and not each["problem"]
                   for each in answer.get("vms", []))

    def _watch(self, attempt, left):
        """Injects what is due until the attempt has an outcome, which is returned."""
        begun = {schedule.ANY: attempt.begun}  # phases by when they began
        slow_s = self._transfer_s(attempt)
        looked_at, complete_since = 0.0, None
        while True:
            self._agenda.run_due()
            self._check_processes()
            phase = attempt.phase()
            if phase:
                begun.setdefault(*phase)
                slow_s = max(slow_s, self._transfer_s(attempt))
            self._inject_due(attempt, left, phase and phase[0], begun)
            now = time.time()
            quiet = not self._agenda.busy and not self._injector.reap()
            if quiet and attempt.command_ended() and now - looked_at > _LOOK_EVERY_S:
                if complete_since is None and self._is_complete(attempt.destination):
                    complete_since = now
                if outcome := self._outcome(attempt, complete_since):
                    return outcome
                looked_at = time.time()
            if quiet and now > max(attempt.begun, self._agenda.disturbed_at) + RESOLVED_S + slow_s:
                raise Lost(f"stuck: no outcome {now - self._agenda.disturbed_at:.0f} s after the last "
                           f"disturbance; postcopyctl relocate: {attempt.command_ended() or 'no end'}; "
                           f"{self._words()}")
            time.sleep(_TICK_S)

    def _inject_due(self, attempt, left, phase, begun):
        """Injects what of `left` is due, and drops what can't come any more."""
        due, over = schedule.due_and_over(left, phase, begun, time.time())
        for injection in over:
            left.remove(injection)
            self._note(injection, injection.kind, attempt, phase, begun, "the phase was over before")
        for injection in due:
            left.remove(injection)
            self._inject(injection, attempt, phase, begun)

    def _inject(self, injection, attempt, phase, begun):
        try:
            kind, missed = self._injector.inject(injection, attempt), ""
        except Missed as cause:
            kind, missed = injection.kind, str(cause)
        self._note(injection, kind, attempt, phase, begun, missed)

    def _note(self, injection, kind, attempt, phase, begun, missed):
        since_ms = (time.time() - begun[phase]) * 1000 if phase else 0
        moment = f"{phase} + {since_ms:.0f} ms" if phase else "back at the source"
        self._add(attempt, kind, injection, moment, missed)

    def _add(self, attempt, kind, injection, moment, missed):
        self._record.add(Entry(round(time.time() - self._began, 3), self._hop, str(attempt), kind,
                               str(injection), moment, missed))

    def _outcome(self, attempt, complete_since):
        """What has become of the attempt, whose command has ended; None: that is not certain yet. All is
        quiet. Lost if the guest runs at both hosts."""
        source, destination = attempt.source, attempt.destination
        if source.runs_guest() and destination.runs_guest():
            raise Lost(f"the guest runs at both hosts; {self._words()}")
        if source.runs_guest():
            state = self._state(source.host)
            if state in _SETTLED:
                return self._outcome_at_source(attempt)
            if state == "prepared" and time.time() > self._agenda.disturbed_at + _LEFT_OVER_S:
                self._cancel_left_over(attempt)
        if complete_since and self._state(destination.host) in _SETTLED:
            if not source.vm.running():
                return "committed"
            if time.time() > complete_since + _LET_GO_S:
                self._record.left_over += 1
                self._record.notes.append(f"hop {self._hop}: the source's QEMU was not let go")
                return "committed"
        return None

    @staticmethod
    def _outcome_at_source(attempt):
        code = attempt.command_ended().code
        if code == CANCELLED:
            return "cancelled"
        return "rolled back" if code == ROLLED_BACK or attempt.stopped() else "refused"

    def _cancel_left_over(self, attempt):
        """A relocation is prepared whose command has ended: gives it up, as an operator who finds it."""
        ended = ctl(attempt.source.host, "cancel", VM)
        self._record.left_over += 1
        self._record.notes.append(
            f"hop {self._hop}: a relocation was left prepared by a postcopyctl that had ended, so that "
            f"others are refused ({attempt.command_ended()}); cancel: {ended}")

    @staticmethod
    def _is_complete(side):
        """Whether the guest runs there and lacks no page."""
        try:
            return side.runs_guest() and not registered(side.vm.pid)
        except (OSError, IndexError):  # it has ended
            return False

    @staticmethod
    def _state(host):
        """The state of the VM's session there, None without one; "" if the daemon does not say."""
        ended = ctl(host, "stats", VM)
        return ended.answer.get("state", "") if ended.code == OK else None if ended.code == 3 else ""

    def _transfer_s(self, attempt):
        """How long the guest's memory takes over the links as they are."""
        if not self._injector.mbit or not attempt.source.vm.running():
            return 0.0
        return 1.5 * attempt.source.vm.touched_bytes() * 8 / (self._injector.mbit * 1e6)

    def _check_command(self, attempt, outcome):
        """Fault if postcopyctl said that it was otherwise."""
        ended = attempt.command_ended()
        said = {OK: "committed", ROLLED_BACK: "rolled back", CANCELLED: "cancelled"}.get(ended.code)
        if said and (said == "committed") != (outcome == "committed"):
            raise Fault(f"postcopyctl said {ended}, and the attempt was {outcome}; {self._words()}")

    def _check_processes(self):
        """Fault if a daemon, Lost if the guest's QEMU has ended that nobody has killed."""
        for name, host in self._stage.hosts.items():
            if name not in self._injector.absent and not host.running():
                raise Fault(f"the daemon of host {name} has ended by itself, status "
                            f"{host.process.returncode}")
        if not any(side.vm.running() for side in self._sides.values()):
            raise Lost(f"no QEMU is left that could run the guest; {self._words()}")

    def _retire(self, name):
        """Lets go of the QEMU at that host."""
        self._runs[name] += self._sides.pop(name).end()

    def _await_quiet(self):
        """Returns when nothing is disturbed any more."""
        while self._agenda.busy or self._injector.reap():
            self._agenda.run_due()
            self._check_processes()
            time.sleep(_TICK_S)

    def _check_guest(self):
        """Returns when the guest has answered. Fault if its checker has found an error, or its console tells
        of a program that has ended."""
        status = None
        while status is None:
            try:
                on_disk = self._disk.errors()
                status = checker.status(self._stage.network, CONFIG.guest.address, timeout_s=2)
            except LabError as error:
                if time.time() > self._agenda.disturbed_at + RESOLVED_S:
                    raise Lost(f"the guest does not answer {RESOLVED_S:.0f} s after all was quiet: "
                               f"{error}; {self._words()}") from None
        for name, side in self._sides.items():
            if found := _ENDED.search(side.vm.console()):
                raise Fault(f"the guest's console at host {name} says: {found[0]}")
        if status.errors:
            self._record.wrong += status.errors
            raise Fault(f"the guest's checker found {status.errors} wrong words in its memory, the first at "
                        f"offset {status.first_error_address}")
        if on_disk:
            self._record.wrong += on_disk
            raise Fault(f"the guest found {on_disk} wrong words on its disk")

    def _note_refusal(self, attempt, outcome):
        """Lost if no attempt was even begun for too long."""
        if outcome != "refused":
            self._refused_since = None
            return
        self._refused_since = max(self._refused_since or attempt.begun, self._agenda.disturbed_at)
        if time.time() > self._refused_since + RESOLVED_S:
            raise Lost(f"stuck: every relocation is refused: {attempt.command_ended()}; {self._words()}")
        time.sleep(_AGAIN_S)

    def _check_all(self, loads):
        """All files, two passes of the checker, all that the loads have seen, the disk, and who ran the
        guest."""
        self._injector.shape(0)
        check = verify(self._stage, None)
        self._record.wrong += (check.files or {}).get("wrong", 0)
        self._record.wrong += check.status.errors if check.status else 0
        self._record.complaints += check.complaints
        for each in loads:
            report = each.stop()
            self._record.wrong += sum(failure["cause"] == "content" for failure in report.raw["failures"])
            self._record.complaints += report.complaints()
        on_disk, generation = self._disk.finish()
        self._record.wrong += on_disk
        for name in tuple(self._sides):
            self._retire(name)
        self._record.complaints += self._disk.faults(generation)
        if twice := overlaps(*self._runs.values()):
            raise Lost(f"the guest ran at both hosts at once: {twice[0]}")

    def _words(self):
        """What both hosts say, for whoever has to find out."""
        words = []
        for name, host in self._stage.hosts.items():
            try:
                answer = ctl(host, "stats", VM, timeout_s=10).answer
                daemon = f"{answer.get('role', '')} {answer.get('state', '')} {answer.get('error', '')}"
            except LabError as error:
                daemon = str(error)
            side = self._sides.get(name)
            vmm = "none" if side is None else side.watch.status if side.vm.running() else "ended"
            words.append(f"host {name}: QEMU {vmm}, session {daemon.strip() or 'none'}")
        return "; ".join(words)
