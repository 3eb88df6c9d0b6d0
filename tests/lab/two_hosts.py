"""The stage of a relocation: a network, a daemon on each of two hosts, and hooked VMs.

What is played on it says scenario.py, or a test. Not responsible for one daemon (host.py) or one
VM (qemu.py).
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil

from . import guest, qemu, releases, saved_guest
from .host import Host
from .network import Network
from .ram import RamFolder

VM = "web1"


def lacks(*programs):
    """The first thing that a stage needs, or one of `programs`, which is not on this machine and cannot
    be brought to it; None: nothing."""
    if os.geteuid() != 0:
        return "root (network namespaces, /dev/userfaultfd)"
    for program in ("qemu-system-x86_64", "ip", "busybox", *programs):
        if shutil.which(program) is None:
            return program
    return None if os.path.exists("/dev/userfaultfd") else "/dev/userfaultfd"


class TwoHosts:
    """A context manager: the network, a daemon on host a and on host b, a folder for guests' RAM.
    All that was started on it ends with it. For one thread.

    `folder` takes logs, sockets and records and stays; keep its path short. `config` is what the
    VMs have in common (but not the QEMU release: POSTCOPY_LAB_QEMU), `source_faults` the fault
    plans of host a's daemon, `daemon_options` more arguments of both daemons, `saved_in` a folder:
    guests are booted once, kept there, and go on from what is kept (saved_guest.py). `network` is one
    that was not entered yet, where it is not to be a plain Network().
    """

    def __init__(self, programs, folder, config=None, source_faults=(), log_level="info",
                 daemon_options=(), saved_in="", network=None):
        self.programs, self.folder = programs, pathlib.Path(folder)
        self.config = config or qemu.Config()
        self._source_faults, self._log_level = source_faults, log_level
        self._daemon_options = daemon_options
        self._saved_in = saved_in
        self.network = network or Network()
        self._image = None
        self._ram = RamFolder(2 * self.config.memory_mib + 128)
        self._stack = contextlib.ExitStack()
        self._started = 0
        self.hosts = {}  # Host by name
        self.qemus = {}  # the QEMU release of each host

    def hooked(self, name):
        """The fields of qemu.Config that make a VM on host `name` one of this stage's."""
        libraries = self.programs.sanitizer_libraries()
        # QEMU itself is not instrumented, and what it does not free at its end is its own business.
        environment = {"ASAN_OPTIONS": "detect_leaks=0"} if libraries else {}
        return {"qemu": self.qemus[name], "hook": str(self.programs.hook),
                "agent": str(self.hosts[name].agent), "preload_before": libraries,
                "environment": environment}

    def start_vm(self, name, incoming=False, **changes):
        """Starts VM `VM` hooked on host `name`; `changes` are fields of qemu.Config that differ
        from the stage's. Returns when QEMU answers: the guest boots (or, on a stage with a folder of
        saved guests, is loaded from there), or waits for a relocation."""
        self._started += 1
        extra = changes.get("extra", ())
        waits = incoming or "-incoming" in extra
        if self._saved_in and not waits:
            changes["extra"] = (*extra, *saved_guest.arguments(self._saved()))
        config = dataclasses.replace(self.config, incoming=incoming,
                                     **(self.hooked(name) | changes))
        vm = qemu.Vm(self.network, name, self._image, self.folder / f"vm{self._started}-{name}",
                     self._ram.path, name=VM, config=config)
        return self._stack.enter_context(vm)

    def await_ready(self, vm):
        """Returns when the guest of `vm`, which start_vm() has started, is ready."""
        if self._saved_in:
            saved_guest.go_on(vm)
        else:
            vm.wait_ready()

    def _saved(self):
        """The stage's guest as a file; it boots once if that is not there yet."""
        config = dataclasses.replace(self.config, qemu=self.qemus["a"])
        path = saved_guest.path_of(self._saved_in, config, self._image)
        if not path.exists():
            saved_guest.make(qemu.Vm(self.network, "a", self._image, self.folder / "saving",
                                     self._ram.path, name=VM, config=config), path)
        return path

    def __enter__(self):
        with contextlib.ExitStack() as building:
            self._image = guest.image()
            self.qemus = releases.of_hosts(self.network.hosts)
            building.enter_context(self.network)
            building.enter_context(self._ram)
            for name in self.network.hosts:
                faults = self._source_faults if name == "a" else ()
                host = Host(self.network, name, self.programs, self.folder / name, faults,
                            self._daemon_options, log_level=self._log_level)
                self.hosts[name] = building.enter_context(host)
            self._stack = building.pop_all()
        return self

    def __exit__(self, *exception):
        return self._stack.__exit__(*exception)
