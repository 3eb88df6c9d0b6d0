"""A small client of QEMU's monitor protocol (QMP) over a Unix socket.

Synchronous and for one thread. Every wait has a time-out: a QEMU whose main thread waits in a page
fault does not answer. What to ask QEMU for is the caller's business.
"""

import collections
import dataclasses
import json
import socket
import time

from .commands import LabError


class QmpError(LabError):
    """QEMU answered a command with an error; `kind` is its class, e.g. GenericError."""

    def __init__(self, command, kind, description):
        super().__init__(f"qmp {command}: {description}")
        self.kind = kind


class QmpTimeout(LabError):
    """QEMU did not answer in time. The command may still take effect later."""


@dataclasses.dataclass(frozen=True)
class Event:
    name: str
    data: dict
    time: float  # when QEMU raised it: seconds since the epoch, CLOCK_REALTIME


class Qmp:
    """One monitor connection, in command mode after the constructor.

    `events` holds every event seen so far, oldest first; reading happens only inside calls.
    """

    def __init__(self, path, timeout_s=10):
        self.path = str(path)
        self.timeout_s = timeout_s
        self.events = collections.deque()
        self._buffer = b""
        self._replies = {}
        self._last_id = 0
        deadline = time.monotonic() + timeout_s
        self._socket = self._connect(deadline)
        self._receive("greeting", deadline)
        self.command("qmp_capabilities", timeout_s=timeout_s)

    def command(self, name, /, timeout_s=None, **arguments):
        """Runs a command and returns what it returns.

        Pass names that are no Python names with `**{"x-y": 1}`. QmpError: QEMU refused. QmpTimeout:
        no answer within `timeout_s` (default: the connection's). LabError: QEMU is gone.
        """
        self._last_id += 1
        request = {"execute": name, "id": self._last_id}
        if arguments:
            request["arguments"] = arguments
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        try:
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except TimeoutError:
            raise QmpTimeout(f"qmp {name}: QEMU at {self.path} does not read") from None
        except OSError as error:
            raise LabError(f"qmp {name}: {self.path}: {error.strerror}") from None
        while self._last_id not in self._replies:
            self._receive(name, deadline)
        reply = self._replies.pop(self._last_id)
        if "error" in reply:
            raise QmpError(name, reply["error"]["class"], reply["error"]["desc"])
        return reply["return"]

    def wait_event(self, name, timeout_s=None, after=0.0):
        """The first event `name` with a time > `after`, seen already or coming; QmpTimeout if
        none."""
        deadline = time.monotonic() + (self.timeout_s if timeout_s is None else timeout_s)
        while True:
            for event in self.events:
                if event.name == name and event.time > after:
                    return event
            self._receive(f"wait for event {name}", deadline)

    def poll_events(self):
        """Reads what has come without waiting, and returns `events`."""
        try:
            while True:
                self._receive("read events", time.monotonic())
        except QmpTimeout:
            return self.events

    def await_news(self, timeout_s):
        """Returns when something has come that was not read yet, at the latest after `timeout_s`. LabError:
        QEMU is gone."""
        try:
            self._receive("read events", time.monotonic() + timeout_s)
        except QmpTimeout:
            pass

    def close(self):
        self._socket.close()

    def _connect(self, deadline):
        while True:
            attempt = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                attempt.settimeout(max(0.001, deadline - time.monotonic()))
                attempt.connect(self.path)
                return attempt
            except OSError as error:
                attempt.close()
                if time.monotonic() >= deadline:
                    raise QmpTimeout(f"connect to qmp {self.path}: {error}") from None
                time.sleep(0.02)

    def _receive(self, what, deadline):
        """Takes in at least one line, or raises QmpTimeout at `deadline`; LabError at end of
        file."""
        while b"\n" not in self._buffer:
            try:
                left = deadline - time.monotonic()
                self._socket.settimeout(left if left > 0 else 0.0001)
                chunk = self._socket.recv(65536)
            except (TimeoutError, BlockingIOError):
                raise QmpTimeout(f"qmp {what}: no answer from {self.path} in time") from None
            except OSError as error:
                raise LabError(f"qmp {what}: {self.path}: {error.strerror}") from None
            if not chunk:
                raise LabError(f"qmp {what}: {self.path}: QEMU has closed the connection")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        message = json.loads(line)
        if "event" in message:
            stamp = message["timestamp"]
            self.events.append(Event(message["event"], message.get("data", {}),
                                     stamp["seconds"] + stamp["microseconds"] / 1e6))
        elif "id" in message:
            self._replies[message["id"]] = message
