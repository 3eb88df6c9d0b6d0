"""postcopyctl as its user sees it: how it ended, whatever that was, also while others go on.

Not responsible for the daemon (host.py), nor for what its answers mean.
"""

import json
import subprocess

from .commands import LabError

# Its exit codes.
OK, USAGE, NO_SUCH_VM, MISFIT, UNREACHABLE = 0, 2, 3, 4, 5
ROLLED_BACK, CANCELLED, UNFINISHED = 6, 7, 8


class Ended:
    """How a postcopyctl ended: `code`, `message` (its complaint), `answer` (its JSON; of `watch` the last
    line's)."""

    def __init__(self, code, stdout, stderr):
        self.code = code
        complaints = [line for line in stderr.splitlines() if line.startswith("postcopyctl ")]
        self.message = complaints[-1] if complaints else stderr.strip() if code else ""
        self.answer = {}
        for text in (stdout, stdout.strip().rpartition("\n")[2]):
            try:
                self.answer = json.loads(text)
                break
            except json.JSONDecodeError:
                continue

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

    def running(self):
        """Whether it has not ended yet."""
        return self._process.poll() is None

    def kill(self):
        """Ends it by force."""
        self._process.kill()
        self._process.communicate()

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
