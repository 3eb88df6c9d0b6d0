"""What the VM tests share: the stage with more freedom than the lab's, and postcopyctl in the
background while a test holds, cuts or kills something.

A test file defines unittest cases, reads as facts, prints what it measured and ends with
`support.main()`: exit status 0 passed, 77 skipped with the name of what is missing, else failed.
Cases that are more of a kind that others play are marked `@support.long_run`. With the first argument
`vm` it plays those that are not marked, with `vm-long` the marked; otherwise all.
"""

import contextlib
import fcntl
import pathlib
import pwd
import shutil
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from lab import guest, qemu, saved_guest  # noqa: E402
from lab.commands import LabError, await_that  # noqa: E402, F401
from lab.host import Programs  # noqa: E402
from lab.network import Network  # noqa: E402
from lab.postcopyctl import (CANCELLED, MISFIT, NO_SUCH_VM, OK, ROLLED_BACK, UNFINISHED,  # noqa: E402, F401
                             UNREACHABLE, USAGE, Background, Ended, ctl)
from lab.two_hosts import VM, TwoHosts, lacks  # noqa: E402

SMALL = guest.Parameters(files_mib=0, check_mib=16, check_pause_us=1000)
_SKIPPED = 77


def require(*programs):
    """Skips the test, by name, where something is missing that it cannot bring itself."""
    if missing := lacks(*programs):
        raise unittest.SkipTest(f"missing: {missing}")


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

    def __init__(self, folder, config, network=None):
        super().__init__(Programs.built(), folder, config, network=network)
        self._started = 0
        self._ready_guest = None

    @property
    def ram_folder(self):
        """Where guests' RAM files are."""
        return self._ram.path

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
        config = qemu.dataclasses.replace(self.config, **(self.hooked(host) | changes))
        vm = EditedVm(self.network, host, self._image, self.folder / f"vm{self._started}",
                      self._ram.path, name=name, config=config)
        vm.edits = edits
        with vm:
            if register and config.hook:
                self.hosts[host].wait_registered(name)
            yield vm

    def save_ready_guest(self):
        """Boots the stage's guest for ready_vm(), once for all tests of a build folder: the next finds it
        there. Several processes may call it at once: one boots it, the others wait."""
        folder = self.programs.daemon.parents[1] / "saved-guests"
        folder.mkdir(exist_ok=True)
        config = qemu.dataclasses.replace(self.config, qemu=self.qemus["a"])
        self._ready_guest = saved_guest.path_of(folder, config, self._image)
        with open(self._ready_guest.with_suffix(".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._ready_guest.exists():
                saved_guest.make(qemu.Vm(self.network, "a", self._image, self.folder / "saving",
                                         self._ram.path, name=VM, config=config), self._ready_guest)

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


def user_ids(name):
    """The ids of that user and its group."""
    entry = pwd.getpwnam(name)
    return entry.pw_uid, entry.pw_gid


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
    ipv6 = False  # hosts with IPv6 addresses only

    @classmethod
    def setUpClass(cls):
        require()
        folder = pathlib.Path(tempfile.mkdtemp(prefix="pcvm-"))
        cls.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
        cls.stage = cls.enterClassContext(Stage(folder, cls.config, Network(ipv6=cls.ipv6)))

    def run(self, result=None):
        seen = len(result.failures) + len(result.errors) if result else 0
        began = time.monotonic()
        outcome = super().run(result)
        if result and len(result.failures) + len(result.errors) > seen:
            print(daemon_words(self.stage), file=sys.stderr)
        print(f"{self._testMethodName.removeprefix('test_').replace('_', ' ')}: "
              f"{time.monotonic() - began:.1f} s", flush=True)
        return outcome


def long_run(case):
    """Marks a case (a function of a test case) as one for the label vm-long."""
    case.long_run = True
    return case


class _Chosen(unittest.TestLoader):
    """Loads the cases that are marked long_run, or those that are not."""

    def __init__(self, marked):
        super().__init__()
        self._marked = marked

    def getTestCaseNames(self, testCaseClass):  # noqa: N802, N803: unittest's names
        return [name for name in super().getTestCaseNames(testCaseClass)
                if hasattr(getattr(testCaseClass, name), "long_run") == self._marked]


def main():
    loader = unittest.defaultTestLoader
    if sys.argv[1:2] in (["vm"], ["vm-long"]):
        loader = _Chosen(sys.argv.pop(1) == "vm-long")
    program = unittest.main(module="__main__", exit=False, verbosity=0, testLoader=loader)
    result = program.result
    if not result.wasSuccessful():
        sys.exit(1)
    for _, reason in result.skipped:
        print(f"skipped: {reason}")
    sys.exit(_SKIPPED if result.skipped and result.testsRun == 0 else 0)
