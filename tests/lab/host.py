"""One host's daemon: a uffd-server in the host's namespace, and postcopyctl to talk to it.

Owns the daemon's folder (agent socket, ownership records, log). Not responsible for the host's
network (network.py) or its VMs (qemu.py).
"""

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import time

from .commands import LabError, NoEnd, run

PORT = 7700
_PROJECT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Programs:
    """The project's programs that a relocation takes."""

    daemon: pathlib.Path
    ctl: pathlib.Path
    hook: pathlib.Path
    load_client: pathlib.Path

    @classmethod
    def built(cls, folder=None):
        """Those of a CMake build folder; default: `POSTCOPY_BUILD_DIR`, or build/release of this
        checkout. The load client may be of another one (`POSTCOPY_LOAD_CLIENT`). LabError names the first
        that is not there."""
        folder = pathlib.Path(folder or os.environ.get("POSTCOPY_BUILD_DIR")
                              or _PROJECT / "build/release")
        programs = cls(folder / "uffd-server/uffd-server", folder / "uffd-server/cli/postcopyctl",
                       folder / "libpostcopy/preload/libpostcopy-preload.so",
                       pathlib.Path(os.environ.get("POSTCOPY_LOAD_CLIENT")
                                    or folder / "bin/lab-load-client"))
        for field in dataclasses.fields(programs):
            path = getattr(programs, field.name)
            if not path.exists():
                raise LabError(f"find the project's programs: {path} is not built")
        return programs

    def sanitizer_libraries(self):
        """What has to be loaded before a hook that was built with a sanitizer: paths, space between."""
        listed = run(["ldd", str(self.hook)], what=f"list the libraries of {self.hook}")
        return " ".join(re.findall(r"=> (/\S*/libclang_rt\.asan\S+)", listed))


def footprint(pid):
    """What a process uses for itself: private memory and page tables, in bytes."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return sum(int(re.search(rf"^{field}:\s+(\d+) kB", status, re.M)[1]) << 10
               for field in ("RssAnon", "VmPTE"))


def cpu_seconds(pid):
    """The time of processors that a process has used, all its threads together."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Host:
    """A context manager: __enter__ starts the daemon, __exit__ ends it; its folder stays. For one
    thread.

    `folder` is this host's own (made if missing; short, since a socket's path has 107 bytes).
    `faults` are fault plans (uffd-server --help), `options` more arguments of the daemon. Records
    and log outlive the process: start() again is a restart of the same daemon.
    """

    def __init__(self, network, name, programs, folder, faults=(), options=(), log_level="info"):
        self.network, self.name, self.programs = network, name, programs
        self.folder = pathlib.Path(folder)
        self.faults, self.options, self.log_level = list(faults), list(options), log_level
        address = network.address(name)
        self.address = f"[{address}]:{PORT}" if ":" in address else f"{address}:{PORT}"
        self.listen = [self.address]  # what the daemon is told; postcopyctl uses `address`
        self.runtime_dir = self.folder / "run"
        self.state_dir = self.folder / "state"
        self.agent = self.runtime_dir / "agent.sock"
        self.log_path = self.folder / "uffd-server.log"
        self.process = None

    def argv(self):
        """The daemon's command line."""
        return [self.programs.daemon, "--config", "/dev/null", "--insecure",
                "--listen", *self.listen, "--runtime-dir", self.runtime_dir,
                "--state-dir", self.state_dir, "--log-level", self.log_level,
                *(word for fault in self.faults for word in ("--fault", fault)), *self.options]

    def launch(self):
        """Starts the daemon and returns at once: it answers some 0.1 s later, if all is well."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.log_path, "a") as log:
            self.process = subprocess.Popen(self.network.exec_argv(self.name, self.argv()),
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self, timeout_s=15):
        """Starts the daemon and returns when it answers. LabError with its words if it ends."""
        deadline = time.monotonic() + timeout_s
        self.launch()
        while self.ctl("list", timeout_s=timeout_s).returncode != 0:
            if self.process.poll() is not None:
                words = "; ".join(self.log().strip().splitlines()[-3:])
                raise LabError(f"start uffd-server on host {self.name}: it ended with status "
                               f"{self.process.returncode}: {words or 'no message'}")
            if time.monotonic() > deadline:
                raise LabError(f"start uffd-server on host {self.name}: no answer from "
                               f"{self.address} after {timeout_s} s")
            time.sleep(0.05)
        return self

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        """Whether the daemon's process lives."""
        return self.process is not None and self.process.poll() is None

    def stop(self, timeout_s=15):
        """Asks the daemon to end (SIGTERM) and returns its exit status. LabError if it does not in
        time. Nothing happens if it does not run."""
        if self.process is None:
            return None
        self.kill(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise LabError(f"stop uffd-server on host {self.name} (pid {self.pid}): still running "
                           f"after {timeout_s} s") from None

    def kill(self, number=signal.SIGKILL):
        """Sends the daemon a signal; after SIGKILL (the default) waits for its end."""
        if self.running():
            self.process.send_signal(number)
            if number == signal.SIGKILL:
                self.process.wait()

    def restart(self):
        """Ends the daemon in order and starts it again with the same folders."""
        self.stop()
        return self.start()

    def log(self):
        """What all daemons of this folder have written."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def ctl_argv(self, *arguments):
        """The command that runs postcopyctl here, e.g. to show or start it."""
        return self.network.exec_argv(
            self.name, [self.programs.ctl, "--daemon", self.address, *arguments])

    def ctl(self, *arguments, timeout_s=60, show_progress=False):
        """Runs postcopyctl on this host and returns its subprocess.CompletedProcess, whatever its
        exit code. With `show_progress` its stderr goes to this process's. NoEnd after
        `timeout_s`."""
        try:
            return subprocess.run(self.ctl_argv(*arguments), stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, text=True, timeout=timeout_s, check=False,
                                  stderr=None if show_progress else subprocess.PIPE)
        except subprocess.TimeoutExpired:
            raise NoEnd(f"postcopyctl {' '.join(map(str, arguments))} on host {self.name}: "
                        f"no end after {timeout_s} s") from None

    def ctl_json(self, *arguments, timeout_s=60, show_progress=False):
        """The same with --json: the object it prints. LabError with its words if it fails."""
        done = self.ctl(*arguments, "--json", timeout_s=timeout_s, show_progress=show_progress)
        try:
            answer = json.loads(done.stdout)
        except json.JSONDecodeError:
            answer = {"error": (done.stderr or "").strip() or "no answer"}
        if done.returncode != 0:
            raise LabError(f"postcopyctl {' '.join(map(str, arguments))} on host {self.name}: "
                           f"{answer.get('error')} (exit code {done.returncode})")
        return answer

    def wait_registered(self, vm, timeout_s=15):
        """Returns when the daemon knows the VM and can relocate it; LabError with the problem
        otherwise."""
        deadline = time.monotonic() + timeout_s
        while True:
            known = {each["name"]: each for each in self.ctl_json("list")["vms"]}
            found = known.get(vm)
            if found and not found["problem"]:
                return found
            # QEMU's main loop may have much to do before it answers its monitor: lock all its memory.
            silent = found and found["problem"].startswith("no answer from its monitor")
            if (found and not silent) or time.monotonic() > deadline:
                cause = found["problem"] if found else f"not known after {timeout_s} s"
                raise LabError(f"register {vm} on host {self.name}: {cause}")
            time.sleep(0.05)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_):
        try:
            self.stop()
        except LabError:
            self.kill()
