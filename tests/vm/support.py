"""What the VM tests share: the stage with more freedom than the lab's, and postcopyctl in the
background while a test holds, cuts or kills something.

A test file defines unittest cases, reads as facts, prints what it measured and ends with
`support.main()`: exit status 0 passed, 77 skipped with the name of what is missing, else failed.
"""

import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from lab import guest, qemu, saved_guest  # noqa: E402
from lab.commands import LabError  # noqa: E402
from lab.host import Programs  # noqa: E402
from lab.two_hosts import VM, TwoHosts  # noqa: E402

SMALL = guest.Parameters(files_mib=0, check_mib=16, check_pause_us=1000)
_SKIPPED = 77

# postcopyctl's exit codes.
OK, USAGE, NO_SUCH_VM, MISFIT, UNREACHABLE = 0, 2, 3, 4, 5
ROLLED_BACK, CANCELLED, UNFINISHED = 6, 7, 8


def require(*programs):
    """Skips the test, by name, where something is missing that it cannot bring itself."""
    if os.geteuid() != 0:
        raise unittest.SkipTest("missing: root (network namespaces, /dev/userfaultfd)")
    for program in ("qemu-system-x86_64", "ip", "busybox", *programs):
        if shutil.which(program) is None:
            raise unittest.SkipTest(f"missing: {program}")
    if not os.path.exists("/dev/userfaultfd"):
        raise unittest.SkipTest("missing: /dev/userfaultfd")


def await_that(what, condition, timeout_s=30, every_s=0.02):
    """Returns the first true value of `condition()`; LabError naming `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise LabError(f"wait until {what}: not so after {timeout_s} s")
        time.sleep(every_s)
    return value


class EditedVm(qemu.Vm):
    """A VM whose command line is the lab's with `edits` made, pairs of a text and what stands in its
    place: for QEMUs that are started wrongly."""

    edits = ()

    def argv(self):
        words = super().argv()
        for old, new in self.edits:
            words = [word.replace(old, new) for word in words]
        return words


class Stage(TwoHosts):
    """TwoHosts with VMs that come and go, and daemons that are given fault plans later."""

    def __init__(self, folder, config):
        super().__init__(Programs.built(), folder, config)
        self._started = 0
        self._ready_guest = self.folder / "ready.guest"

    def renew_daemons(self, **faults):
        """Both daemons start again, without records; `faults` are their plans by host, e.g.
        a=["hold-at=held"]."""
        for name, host in self.hosts.items():
            host.stop()
            shutil.rmtree(host.state_dir, ignore_errors=True)
            host.faults = list(faults.get(name, ()))
            host.start()

    @contextlib.contextmanager
    def vm(self, host, name=VM, register=True, edits=(), **changes):
        """A VM on `host` while the block lasts, in a folder of its own, known to the daemon if
        `register`. `changes` are fields of qemu.Config; hook="" for none; `edits` see
        EditedVm."""
        self._started += 1
        changes = self.hooked(host) | changes
        changes["extra"] = (*changes.get("extra", self.config.extra), "-qmp",
                            f"unix:{self.watch_path(self._started)},server=on,wait=off")
        config = qemu.dataclasses.replace(self.config, **changes)
        vm = EditedVm(self.network, host, self._image, self.folder / f"vm{self._started}",
                      self._ram.path, name=name, config=config)
        vm.edits = edits
        vm.watch_path = self.watch_path(self._started)
        with vm:
            if register and config.hook:
                self.hosts[host].wait_registered(name)
            yield vm

    def watch_path(self, number):
        """A monitor for OwnerWatch, beside the test's own and the daemon's."""
        return self.folder / f"vm{number}/watch.qmp"

    def save_ready_guest(self):
        """Boots the stage's guest once, for ready_vm()."""
        with self.vm("a", register=False, hook="") as vm:
            vm.wait_ready()
            saved_guest.save(vm, self._ready_guest)

    @contextlib.contextmanager
    def ready_vm(self, host):
        """vm(), but its guest goes on from the saved one: it is ready in a fraction of a second."""
        with self.vm(host, extra=saved_guest.arguments(self._ready_guest)) as vm:
            saved_guest.go_on(vm)
            yield vm

    def relocating(self, *options, vm=VM, source="a", destination="b"):
        """Begins to relocate: a Background."""
        return Background(self.hosts[source], "relocate", vm, "--to",
                          self.hosts[destination].address, *options)

    def relocate(self, *options, **which):
        """Relocates and waits for the end: Ended."""
        return self.relocating(*options, **which).end()


class Ended:
    """How a postcopyctl ended: `code`, `message` (its complaint), `answer` (its JSON)."""

    def __init__(self, code, stdout, stderr):
        self.code = code
        complaints = [line for line in stderr.splitlines() if line.startswith("postcopyctl ")]
        self.message = complaints[-1] if complaints else stderr.strip() if code else ""
        try:
            self.answer = json.loads(stdout)
        except json.JSONDecodeError:
            self.answer = {}

    def __str__(self):
        return f"exit code {self.code}, {self.message or 'no complaint'}"


class Background:
    """A postcopyctl that runs while the test goes on."""

    def __init__(self, host, *arguments):
        self._what = " ".join(map(str, arguments))
        self._process = subprocess.Popen(host.ctl_argv(*arguments, "--json"), text=True,
                                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                         stderr=subprocess.PIPE)

    def signal(self, number):
        self._process.send_signal(number)

    def end(self, timeout_s=90):
        """Waits for its end. LabError after `timeout_s`."""
        try:
            stdout, stderr = self._process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            _, stderr = self._process.communicate()
            raise LabError(f"postcopyctl {self._what}: no end after {timeout_s} s; its last words: "
                           f"{stderr[-300:]}") from None
        return Ended(self._process.returncode, stdout, stderr)


def ctl(host, *arguments, timeout_s=60):
    """Runs postcopyctl with --json on a lab Host: Ended."""
    done = host.ctl(*arguments, "--json", timeout_s=timeout_s)
    return Ended(done.returncode, done.stdout, done.stderr)


def held_file(host, step):
    return host.runtime_dir / f"held-{step}"


def wait_held(host, step):
    """Returns when the daemon has stopped at `step` (fault plan hold-at)."""
    await_that(f"daemon {host.name} is held at {step}", held_file(host, step).exists,
               every_s=0.005)


def go_on(host, step):
    """Lets the daemon go on."""
    held_file(host, step).unlink(missing_ok=True)


def daemon_words(stage, lines=25):
    """The end of both daemons' logs, for a failure's message."""
    return "".join(f"\n--- daemon {name}\n" + "\n".join(host.log().splitlines()[-lines:])
                   for name, host in stage.hosts.items())


class StageTest(unittest.TestCase):
    """A test case with one Stage for all its tests; `config` is what its VMs have in common."""

    config = qemu.Config(memory_mib=256, guest=SMALL)

    @classmethod
    def setUpClass(cls):
        require()
        folder = pathlib.Path(tempfile.mkdtemp(prefix="pcvm-"))
        cls.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
        cls.stage = cls.enterClassContext(Stage(folder, cls.config))

    def run(self, result=None):
        seen = len(result.failures) + len(result.errors) if result else 0
        began = time.monotonic()
        outcome = super().run(result)
        if result and len(result.failures) + len(result.errors) > seen:
            print(daemon_words(self.stage), file=sys.stderr)
        print(f"{self._testMethodName.removeprefix('test_').replace('_', ' ')}: "
              f"{time.monotonic() - began:.1f} s", flush=True)
        return outcome


def main():
    program = unittest.main(module="__main__", exit=False, verbosity=0)
    result = program.result
    if not result.wasSuccessful():
        sys.exit(1)
    for _, reason in result.skipped:
        print(f"skipped: {reason}")
    sys.exit(_SKIPPED if result.skipped and result.testsRun == 0 else 0)
