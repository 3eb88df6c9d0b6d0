"""One virtual machine: a QEMU process in a host's network namespace.

Starts, watches and ends QEMU, and owns its serial log, error log and monitor sockets. Not
responsible for the network (network.py), for what the guest does (guest.py) or for relocating it.
"""

import dataclasses
import os
import pathlib
import pwd
import re
import select
import signal
import subprocess
import time

from .commands import LabError
from .guest import Parameters
from .qmp import Qmp
from .releases import INSTALLED, Release

@dataclasses.dataclass
class Config:
    """How QEMU is started. Source and destination of a relocation take equal `memory_mib`,
    `machine`, `cpu`, `smp`, `guest`."""

    memory_mib: int = 1024
    ram: str = "file"                # "file": shared named file on tmpfs; "inherited": a memfd that QEMU
                                     # is given; "memfd": one that it makes; "anon": anonymous memory
    ram_folder: str = ""             # where the RAM file is made; "": the stage's
    ram_options: str = ""            # more options of the RAM's backend, e.g. "align=2M"
    prealloc: bool = False           # of the RAM file
    added_mib: int = 0               # more RAM that can be added to the running guest
    nodes: int = 1                   # NUMA nodes, each with RAM of its own, equal parts
    reboots: bool = False            # a guest that resets boots again; otherwise QEMU ends
    machine: str = "pc-i440fx-7.2"
    cpu: str = ""                    # QEMU's default
    smp: int = 1
    accel: str = "tcg"
    guest: Parameters = dataclasses.field(default_factory=Parameters)
    user: str = ""                   # QEMU runs as this user, its tap opened for it; "": as we do
    incoming: bool = False           # wait for a relocation: -S -incoming defer
    tap: str = "tap0"
    mac: str = "52:54:00:77:00:02"   # the same wherever the guest runs
    qemu: Release = Release(INSTALLED)
    first: tuple = ()                # more arguments of QEMU, before its network card
    extra: tuple = ()                # and last
    nic: str = ""                    # more properties of the network card, e.g. "bus=port0"
    queues: int = 1                  # of the network card; more than one: `tap` is a multiqueue one
    daemonize: bool = False          # QEMU leaves for the background by itself
    hook: str = ""                   # path of libpostcopy-preload.so; "": not hooked
    agent: str = ""                  # POSTCOPY_AGENT for the hook: the daemon's socket
    preload_before: str = ""         # libraries in LD_PRELOAD before the hook, e.g. libasan
    environment: dict = dataclasses.field(default_factory=dict)


class Daemonized:
    """What subprocess.Popen is to a child, for a process that has left for the background. How it ended is
    not known: its exit status counts as 0."""

    def __init__(self, pid):
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    def poll(self):
        return 0 if select.select([self._pidfd], [], [], 0)[0] else None

    def wait(self, timeout=None):
        if not select.select([self._pidfd], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("qemu", timeout)
        return 0

    def send_signal(self, number):
        signal.pidfd_send_signal(self._pidfd, number)


class Vm:
    """A context manager: __enter__ starts QEMU, __exit__ kills it if it still runs and removes its
    RAM file and sockets; logs stay. For one thread.

    `name` is the VM's name to the daemon (POSTCOPY_VM) and need not be unique: two VMs of one name
    on two hosts are what a relocation is about. `folder` takes the logs and sockets of this one VM
    (made if missing; short, since a socket's path has 107 bytes), `ram_folder` its RAM file.
    """

    def __init__(self, network, host, image, folder, ram_folder, name="guest", config=None):
        self.network, self.host, self.image, self.name = network, host, image, name
        self.config = config or Config()
        self.folder = pathlib.Path(folder)
        self.serial_log = self.folder / "serial.log"
        self.error_log = self.folder / "qemu.err"
        self.qmp_path = self.folder / "test.qmp"
        self.daemon_qmp_path = self.folder / "daemon.qmp"
        self.pid_path = self.folder / "qemu.pid"
        self.watch_path = self.folder / "watch.qmp"  # a monitor for whoever watches: run_watch.py
        stem = f"{name}-{host}-{os.urandom(3).hex()}"
        folder = pathlib.Path(self.config.ram_folder or ram_folder)
        self.ram_paths = [folder / f"{stem}-{node}.ram" for node in range(self.config.nodes)]
        self.process = None
        self.exit_status = None  # QEMU's, or minus the signal that ended it; None while it runs
        self._qmp = None
        self._tap = None  # opened for a QEMU that runs as another user
        self._memfds = []
        self._started = 0.0

    @property
    def ram_path(self):
        """The RAM file, of a VM with one NUMA node."""
        path, = self.ram_paths
        return path

    def _memory(self):
        """The words of QEMU's command line that describe guest RAM."""
        c = self.config
        if c.ram not in ("file", "inherited", "memfd", "anon"):
            raise LabError(f"start {self.name} on {self.host}: ram={c.ram!r} is not file, inherited, "
                           "memfd or anon")
        words = []
        for node, path in enumerate(self.ram_paths):
            name = "ram" if c.nodes == 1 else f"ram{node}"
            common = f"id={name},size={c.memory_mib // c.nodes}M"
            common += f",{c.ram_options}" if c.ram_options else ""
            if c.ram == "anon":
                words += ["-object", f"memory-backend-ram,{common}"]
            elif c.ram == "memfd":
                words += ["-object", f"memory-backend-memfd,{common},share=on"]
            else:
                at = f"/proc/self/fd/{self._memfds[node]}" if c.ram == "inherited" else path
                words += ["-object", f"memory-backend-file,{common},mem-path={at},share=on,"
                                     f"prealloc={'on' if c.prealloc else 'off'}"]
            if c.nodes > 1:
                words += ["-numa", f"node,nodeid={node},memdev={name}"]
        return words

    def argv(self):
        """QEMU's command line."""
        c = self.config
        tap = (f"fd={self._tap.fileno()}" if self._tap
               else f"ifname={c.tap},script=no,downscript=no")
        nic = f"virtio-net-pci,netdev=net0,mac={c.mac},romfile="
        if c.queues > 1:
            tap += f",queues={c.queues}"
            nic += f",mq=on,vectors={2 * c.queues + 2}"
        firmware = [word for folder in c.qemu.firmware for word in ("-L", folder)]
        return [c.qemu.program, *firmware, "-name", self.name, "-nodefaults", "-no-user-config",
                *([] if c.reboots else ["-no-reboot"]), "-vga", "none", "-display", "none",
                "-machine", c.machine + (",memory-backend=ram" if c.nodes == 1 else ""),
                "-accel", c.accel,
                *(["-cpu", c.cpu] if c.cpu else []), "-smp", str(c.smp),
                "-m", f"{c.memory_mib}M" + (f",slots=1,maxmem={c.memory_mib + c.added_mib}M"
                                            if c.added_mib else ""), *self._memory(),
                "-kernel", str(self.image.kernel), "-initrd", str(self.image.initramfs),
                "-append", c.guest.command_line(), *c.first,
                "-netdev", f"tap,id=net0,{tap}",
                "-device", f"{nic},{c.nic}" if c.nic else nic,
                "-chardev", f"file,id=serial0,path={self.serial_log}", "-serial", "chardev:serial0",
                "-qmp", f"unix:{self.qmp_path},server=on,wait=off",
                "-qmp", f"unix:{self.daemon_qmp_path},server=on,wait=off",
                "-qmp", f"unix:{self.watch_path},server=on,wait=off",
                *(["-S", "-incoming", "defer"] if c.incoming else []),
                *(["-daemonize", "-pidfile", str(self.pid_path)] if c.daemonize else []), *c.extra]

    def environment(self):
        """What QEMU finds in its environment beside what this process has."""
        c = self.config
        added = dict(c.environment)
        if c.hook:
            added |= {"LD_PRELOAD": f"{c.preload_before} {c.hook}".strip(),
                      "POSTCOPY_VM": self.name, "POSTCOPY_AGENT": str(c.agent),
                      "POSTCOPY_QMP": str(self.daemon_qmp_path)}
        return added

    def start(self):
        """Starts QEMU and returns when its monitor answers. LabError with QEMU's words if it ends.

        The hook is preloaded into QEMU alone, not into `ip netns exec`.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.config.ram == "inherited":
            self._make_memfds()
        become = self._become_user() if self.config.user else []
        added = [f"{key}={value}" for key, value in self.environment().items()]
        argv = self.network.exec_argv(self.host, [*become, "env", *added, *self.argv()])
        self._started = time.monotonic()
        with open(self.error_log, "w") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            pass_fds=[*([self._tap.fileno()] if self._tap else []),
                                                      *self._memfds])
        if self.config.daemonize:
            self._find_daemon()
        while not self.qmp_path.exists():
            self._require_running("start")
            if time.monotonic() - self._started > 30:
                raise LabError(f"start {self.name} on {self.host}: no monitor after 30 s")
            time.sleep(0.01)
        return self

    def _find_daemon(self):
        """Puts the process in the place of the one that was started, which ends when QEMU is in the
        background."""
        if self.process.wait(30) == 0:
            self.process = Daemonized(int(self.pid_path.read_text()))

    def _make_memfds(self):
        size = (self.config.memory_mib << 20) // self.config.nodes
        self._memfds = [os.memfd_create(path.name) for path in self.ram_paths]
        for memfd in self._memfds:
            os.truncate(memfd, size)
        self.ram_paths = [pathlib.Path(f"/proc/{os.getpid()}/fd/{memfd}")
                          for memfd in self._memfds]

    def _become_user(self):
        """Gives the user what QEMU needs of its own and returns the words that run it as that user."""
        entry = pwd.getpwnam(self.config.user)
        os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        self._tap = self.network.open_tap(self.host, self.config.tap)
        return ["setpriv", "--reuid", str(entry.pw_uid), "--regid", str(entry.pw_gid),
                "--clear-groups", "--no-new-privs"]

    @property
    def pid(self):
        return self.process.pid

    @property
    def qmp(self):
        """The test's own monitor connection, opened at first use."""
        if self._qmp is None:
            self._qmp = Qmp(self.qmp_path)
        return self._qmp

    def running(self):
        """Whether the process lives. Fills `exit_status` when it does not."""
        if self.exit_status is None and self.process is not None:
            self.exit_status = self.process.poll()
        return self.process is not None and self.exit_status is None

    def wait_ready(self, timeout_s=60):
        """Waits until the guest says GUEST READY and returns the seconds since start().

        LabError if the guest or QEMU gives up, or after `timeout_s`, with the console's last lines.
        """
        while True:
            console = self.console()
            if "GUEST READY" in console:
                return time.monotonic() - self._started
            cause = next((line for line in console.splitlines() if "GUEST FAILED" in line
                          or "ENDED" in line or "Kernel panic" in line), None)
            if cause is None and time.monotonic() - self._started > timeout_s:
                cause = f"not ready after {timeout_s} s"
            if cause:
                tail = " | ".join(console.splitlines()[-5:])
                raise LabError(f"boot {self.name} on {self.host}: {cause}; console: {tail}")
            self._require_running("boot")
            time.sleep(0.05)

    def console(self):
        """What the guest has written to its serial console so far."""
        return self.serial_log.read_text(errors="replace") if self.serial_log.exists() else ""

    def touched_bytes(self):
        """How much of the guest's RAM is in use: what was ever written, at least."""
        if self.config.ram != "anon":
            return sum(path.stat().st_blocks * 512 for path in self.ram_paths)
        node_bytes = (self.config.memory_mib << 20) // self.config.nodes
        smaps = pathlib.Path(f"/proc/{self.pid}/smaps").read_text()
        entries = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) .*\n(?:[A-Z].*\n)*?Rss:\s+(\d+) kB",
                             smaps, re.M)
        return sum(int(rss) << 10 for first, last, rss in entries
                   if int(last, 16) - int(first, 16) == node_bytes)

    def quit(self, timeout_s=10):
        """Asks QEMU to quit and waits; returns its exit status. LabError if it does not in time."""
        if self.running():
            try:
                self.qmp.command("quit", timeout_s=timeout_s)
            except LabError:
                pass  # the connection may close before the reply
        return self.wait_exit(timeout_s)

    def kill(self, number=signal.SIGKILL):
        """Sends a signal (default SIGKILL, then waits for the end). Nothing happens if it has
        ended."""
        if self.running():
            self.process.send_signal(number)
            if number == signal.SIGKILL:
                self.wait_exit(30)

    def wait_exit(self, timeout_s=10):
        """Waits for QEMU's end and returns its exit status; LabError after `timeout_s`."""
        try:
            self.exit_status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise LabError(f"wait for {self.name} on {self.host} (pid {self.pid}): "
                           f"still running after {timeout_s} s") from None
        return self.exit_status

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        if self.process is not None:
            self.kill()
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None
        if self._tap is not None:
            self._tap.close()
            self._tap = None
        made = [] if self._memfds else self.ram_paths
        for path in (*made, self.qmp_path, self.daemon_qmp_path, self.watch_path, self.pid_path):
            path.unlink(missing_ok=True)
        while self._memfds:
            os.close(self._memfds.pop())

    def _require_running(self, what):
        if not self.running():
            words = self.error_log.read_text(errors="replace").strip().splitlines()[-3:]
            raise LabError(f"{what} {self.name} on {self.host}: QEMU ended with status "
                           f"{self.exit_status}: {'; '.join(words) or 'no message'}")
