#!/usr/bin/env python3
"""Tests of the network's delayed link, and of connections that are ended: two namespaces, no guest.
Skipped where the lab can't be made.

Needs the built relay (POSTCOPY_LAB_RELAY, or a compiler to build it).
"""

import os
import pathlib
import socket
import sys
import threading
import time
import unittest

if __package__ in (None, ""):  # run as a program
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
    __package__ = "lab"
from .commands import LabError
from .network import Network

_PORT = 7712
_ROUND_TRIP_MS = 20
_BYTES = 8 << 20


@unittest.skipUnless(os.geteuid() == 0 and os.path.exists("/dev/net/tun"), "needs root and TUN devices")
class NetworkTest(unittest.TestCase):
    def setUp(self):
        self.network = self.enterContext(Network())

    def connect(self, host, other):
        """A connection from `host` to `other`'s own address, its other end, and the milliseconds that
        it took."""
        address = (self.network.address(other), _PORT)
        listener = self.network.inside(other, lambda: socket.create_server(address))
        with listener:
            began = time.monotonic()
            near = self.network.inside(host, lambda: socket.create_connection(address, timeout=10))
            took_ms = (time.monotonic() - began) * 1000
            far, peer = listener.accept()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        self.assertEqual(peer[0], self.network.address(host))
        return near, far, took_ms


class Reset(NetworkTest):
    def test_both_ends_of_a_connection_between_hosts_are_told(self):
        if not self.network.can_reset():
            self.skipTest("this kernel cannot end others' connections")
        near, far, _ = self.connect("a", "b")
        self.assertEqual(self.network.reset("b"), 1)
        for end in (near, far):
            end.settimeout(10)
            with self.assertRaises(ConnectionError):
                end.recv(1)
        self.assertEqual(self.network.reset("b"), 0)


class Delay(NetworkTest):
    def test_the_round_trip_is_as_asked_and_no_byte_is_lost(self):
        relay = self.network.delay(_ROUND_TRIP_MS)
        sent_before = self.network.bytes_sent("a")
        near, far, took_ms = self.connect("a", "b")
        self.assertGreaterEqual(took_ms, _ROUND_TRIP_MS)
        self.assertLess(took_ms, 3 * _ROUND_TRIP_MS)
        for end in (near, far):
            end.settimeout(10)
        content, received = os.urandom(_BYTES), bytearray()
        sender = threading.Thread(target=near.sendall, args=(content,))
        sender.start()
        while len(received) < _BYTES:
            received += far.recv(1 << 20)
        sender.join()
        self.assertEqual(bytes(received), content)
        sent = self.network.bytes_sent("a") - sent_before
        self.assertTrue(_BYTES < sent < 1.1 * _BYTES, sent)
        counts = relay.stop()
        self.assertGreater(counts["forward"]["bytes"], _BYTES)
        self.assertEqual(counts["forward"]["dropped"] + counts["backward"]["dropped"], 0)

    def test_both_directions_are_delayed_and_the_client_is_not(self):
        self.network.delay(_ROUND_TRIP_MS)
        self.assertGreaterEqual(self.connect("b", "a")[2], _ROUND_TRIP_MS)
        address = (self.network.client_address, _PORT)
        with self.network.inside("client", lambda: socket.create_server(address)):
            began = time.monotonic()
            self.network.inside("a", lambda: socket.create_connection(address, timeout=10)).close()
            self.assertLess((time.monotonic() - began) * 1000, _ROUND_TRIP_MS)

    def test_a_delayed_link_is_not_limited_nor_a_limited_one_delayed(self):
        self.network.shape("b", 1000)
        with self.assertRaisesRegex(LabError, "host b's is limited"):
            self.network.delay(1)
        self.network.unshape("b")
        self.network.delay(1)
        with self.assertRaisesRegex(LabError, "it is delayed"):
            self.network.shape("b", 1000)
        with self.assertRaisesRegex(LabError, "it is delayed"):
            self.network.cut("b")
        with self.assertRaisesRegex(LabError, "delayed already"):
            self.network.delay(1)

    def test_a_relay_whose_device_is_gone_says_so(self):
        relay = self.network.delay(1)
        self.network.inside("b", lambda: os.system("ip link delete delay0"))
        with self.assertRaisesRegex(LabError, "relay packets: .*device"):
            relay.stop()


if __name__ == "__main__":
    unittest.main()
