"""The client's traffic: runs the load client in the client's namespace and reads its report.

Also has the guest's files verified. What the numbers mean for a relocation says timeline.py; the
load client itself is load/.
"""

import json
import pathlib
import signal
import subprocess
import threading

from . import guest as guest_programs
from . import native
from .commands import LabError
from .timeline import Window


def build_client(folder=None):
    """Path of the load client: `POSTCOPY_LOAD_CLIENT` if set, else built: native.program."""
    return native.program("lab-load-client", "load", "POSTCOPY_LOAD_CLIENT", folder)


class Report:
    """What a finished load run has measured. `raw`: its JSON (lab-load-client run --help)."""

    def __init__(self, raw):
        self.raw = raw
        self.finished_requests = raw["finished_requests"]
        self.failed_requests = raw["failed_requests"]
        self.lost_connections = raw["lost_connections"]
        self.wrong_values = raw.get("wrong_values", 0)
        self.windows = [Window(w["start_ms"] / 1000, w["count"], w["gap_us"] / 1000)
                        for w in raw["windows"]]

    def complaints(self):
        """What the client has lost or found wrong, a sentence each."""
        found = ((self.failed_requests, "requests failed"), (self.lost_connections, "connections were lost"),
                 (self.wrong_values, "values were wrong"))
        return [f"{count} {what}" for count, what in found if count]


class Client:
    """A run of the load client. Start it, relocate, stop it; or use it as a context manager, which stops
    the client in any case. For one thread.

    `argv` is its command line but for `--output`, `output` the file for its JSON. `stop()` may be called
    again and gives the same report.
    """

    def __init__(self, network, argv, output):
        self._network, self._output = network, pathlib.Path(output)
        self._argv = [*argv, "--output", output]
        self._process = None
        self._report = None

    def start(self, timeout_s=30):
        """Returns when the first response has come; LabError if it has not after `timeout_s`."""
        self._output.unlink(missing_ok=True)
        self._process = subprocess.Popen(self._network.exec_argv("client", self._argv), text=True,
                                         stdout=subprocess.PIPE)
        killer = threading.Timer(timeout_s, self._process.kill)
        killer.start()
        first_line = self._process.stdout.readline()
        killer.cancel()
        if first_line != "started\n":
            self._process.kill()
            self._process.wait()
            raise LabError(f"start the load: no response within {timeout_s} s")
        return self

    def stop(self):
        """Ends the client and returns its Report. LabError if it has not written one."""
        if self._report is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                status = self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                status = self._process.wait()
            self._process.stdout.close()
            if status != 0 or not self._output.exists():
                raise LabError(f"stop the load: the client ended with status {status}")
            self._report = Report(json.loads(self._output.read_text()))
        return self._report

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class Load(Client):
    """Requests for random files of the guest, over connections that are kept open. `guest` is the guest's
    `Parameters`."""

    def __init__(self, network, client, guest, output, connections=8, think_ms=5, timeout_ms=0):
        super().__init__(network, [client, *self._subcommand(guest), "--connections", connections,
                                   "--think-ms", think_ms, "--timeout-ms", timeout_ms], output)

    def _subcommand(self, guest):
        return ["run", *_target(guest)]


class KeyValueLoad(Load):
    """A load on the guest's memcached, which start() fills first."""

    def _subcommand(self, guest):
        return ["kv", "--server", guest.address, "--values-mib", guest.memcached_mib,
                "--seed", guest.seed]

    def start(self, timeout_s=120):
        return super().start(timeout_s)


class Visitors(Client):
    """Sessions of visitors to the guest's web site; `mix` is banking, ecommerce or support. `sessions` at a
    time (closed loop), or `arrivals_per_s` above 0 (open loop)."""

    def __init__(self, network, client, guest, output, mix, sessions=40, arrivals_per_s=0, think_ms=1000,
                 seed=1):
        super().__init__(network, [client, "browse", "--url-base", f"http://{guest.address}", "--mix", mix,
                                   "--directories", guest.web_dirs, "--content-seed", guest.seed,
                                   "--sessions", sessions, "--arrivals-per-s", arrivals_per_s,
                                   "--think-ms", think_ms, "--seed", seed], output)


def verify_files(network, client, guest, connections=4, timeout_s=300):
    """Fetches all of the guest's files and compares their SHA-256 with the content of its seed.

    Returns the client's JSON: files, checked, wrong, first_wrong, seconds, error. The files are
    right if and only if `checked == files and wrong == 0`: see `files_are_right`. LabError if the
    client says nothing.
    """
    argv = network.exec_argv("client", [client, "verify", *_target(guest),
                                        "--connections", connections, *_program(guest)])
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False)
        return json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise LabError(f"verify the files: no end after {timeout_s} s") from None
    except json.JSONDecodeError:
        raise LabError(f"verify the files: {done.stderr.strip() or 'no report'}") from None


def files_are_right(result):
    """Whether verify_files() has fetched every file and found each right."""
    return result["error"] is None and result["checked"] == result["files"] and result["wrong"] == 0


def _program(guest):
    """What realistic files take their machine code from: the guest's busybox is this machine's."""
    return ["--program", guest_programs.busybox()] if guest.content == "realistic" else []


def _target(guest):
    return ["--url-base", f"http://{guest.address}", "--files", guest.files, "--seed", guest.seed]
