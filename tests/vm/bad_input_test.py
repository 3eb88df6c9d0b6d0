#!/usr/bin/env python3
"""Whatever is sent to a daemon's ports and to its agent socket, and however many connect and stay
silent, the sender is turned away and a relocation at the same time succeeds.
"""

import contextlib
import os
import random
import socket
import struct

import support
from lab import checker
from lab.host import footprint
from support import OK, await_that

_DATA_PORT, _CONTROL_PORT = 7701, 7700
_IDLE = 1000          # connections
_TURNED_AWAY_S = 20   # a greeting is waited for for 5 s, a registration for 10 s
_MAX_MIB = 64         # what a daemon may need more, of its own memory


def frame(kind, body=b"", encoding=0, aux=0, length=None):
    return struct.pack("<BBHI", kind, encoding, aux, len(body) if length is None else length) + body


def hello(version=1, session=bytes(16)):
    return frame(1, b"PCPY" + struct.pack("<HBB", version, 0, 0) + session)


NOISE = random.Random(1).randbytes(1 << 16)
BAD = {
    "noise": NOISE,
    "half a frame": frame(1, length=24)[:5],
    "a frame of 4 GiB": frame(1, length=0xFFFFFFFF) + bytes(64),
    "an HTTP request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a greeting of version 0": hello(version=0),
    "a greeting for an unknown session": hello(session=NOISE[:16]),
    "a request without a greeting": frame(3, bytes(16)),
    "zeros": bytes(4096),
}


class BadInput(support.StageTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.stage.save_ready_guest()

    def connections(self, host, port, count):
        """`count` connections from the client's host to a port, closed at the test's end."""
        address = (self.stage.network.address(host), port)

        def connect():
            return [socket.create_connection(address, timeout=10) for _ in range(count)]
        made = self.stage.network.inside("client", connect)
        for each in made:
            self.addCleanup(each.close)
        return made

    def agent_connections(self, host, count):
        made = []
        for _ in range(count):
            each = socket.socket(socket.AF_UNIX)
            each.settimeout(10)
            await_that("the agent takes a connection", lambda: self.connected(each, host))
            self.addCleanup(each.close)
            made.append(each)
        return made

    def connected(self, unix_socket, host):
        try:
            unix_socket.connect(str(self.stage.hosts[host].agent))
        except BlockingIOError:  # as many wait to be taken as may
            return False
        return True

    def assert_turned_away(self, connection, what):
        """The daemon closes it, whatever it says before."""
        connection.settimeout(_TURNED_AWAY_S)
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(1 << 16):
                pass
        print(f"turned away: {what}", flush=True)

    def own_memory_mib(self, host):
        return footprint(self.stage.hosts[host].pid) / 2**20

    @contextlib.contextmanager
    def relocating_meanwhile(self):
        """A relocation that succeeds after the block."""
        with self.stage.ready_vm("a"), self.stage.vm("b", incoming=True):
            yield
            ended = self.stage.relocate()
            self.assertEqual(ended.code, OK, ended.message)
            status = checker.wait_full_passes(self.stage.network, self.config.guest.address, 1)
            self.assertEqual(status.errors, 0)

    def test_what_no_peer_would_send_is_turned_away(self):
        with self.relocating_meanwhile():
            before = {host: self.own_memory_mib(host) for host in "ab"}
            sent = []
            for what, text in BAD.items():
                for host in "ab":
                    made = [*self.connections(host, _DATA_PORT, 1), *self.agent_connections(host, 1)]
                    if what != "half a frame":  # which gRPC waits for the rest of
                        made += self.connections(host, _CONTROL_PORT, 1)
                    for each in made:
                        peer = each.getpeername()
                        with contextlib.suppress(ConnectionError):
                            each.sendall(text)
                        sent.append((each, f"{what}, host {host}, {peer}"))
            for connection, what in sent:
                self.assert_turned_away(connection, what)
            for host in "ab":
                log = self.stage.hosts[host].log()
                for reason in ("no such session", "protocol version", "malformed", "agent: "):
                    self.assertIn(reason, log)
                self.assertLess(self.own_memory_mib(host) - before[host], _MAX_MIB)

    def test_a_thousand_silent_connections_keep_nobody_out(self):
        before = {host: self.own_memory_mib(host) for host in "ab"}
        with self.relocating_meanwhile():
            silent = []
            for host in "ab":
                silent += self.connections(host, _DATA_PORT, _IDLE)
                silent += self.connections(host, _CONTROL_PORT, _IDLE)
                silent += self.agent_connections(host, 200)
            more = {host: self.own_memory_mib(host) - before[host] for host in "ab"}
            open_fds = {host: len(os.listdir(f"/proc/{self.stage.hosts[host].pid}/fd"))
                        for host in "ab"}
            print(f"{len(silent)} silent connections: MiB more {more}, descriptors {open_fds}",
                  flush=True)
            for host in "ab":
                self.assertLess(more[host], _MAX_MIB)
        for each in silent:
            each.close()
        for host in "ab":
            await_that(f"daemon {host} has closed them, too", lambda h=host: len(
                os.listdir(f"/proc/{self.stage.hosts[h].pid}/fd")) < 100)


if __name__ == "__main__":
    support.main()
