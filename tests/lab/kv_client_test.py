#!/usr/bin/env python3
"""Tests of the load client's key-value load against a server on loopback that misbehaves as each test
says.

Needs the built client (POSTCOPY_LOAD_CLIENT, or a compiler to build it); no namespace, no guest.
"""

import contextlib
import json
import pathlib
import socket
import subprocess
import sys
import threading
import unittest

if __package__ in (None, ""):  # run as a program
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
    __package__ = "lab"
from .load import build_client

_KEYS = (1 << 20) // 2560  # of one MiB of values


class Memcached:
    """Keeps what is set, and answers the n-th request (from 0, over all connections) rightly, but for what
    `spoil(n, name, key, answer)` makes of it: bytes; None closes the connection."""

    def __init__(self, spoil):
        self.values, self._spoil = {}, spoil
        self._count, self._lock = 0, threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()

    def _accept(self):
        with contextlib.suppress(OSError):  # until it is closed
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, contextlib.suppress(ConnectionError), connection.makefile("rb") as requests:
            while words := requests.readline().split():
                with self._lock:
                    answer = self._answer(words, requests)
                    answer = self._spoil(self._count, words[0].decode(), words[1].decode(), answer)
                    self._count += 1
                if answer is None:
                    return
                connection.sendall(answer)

    def _answer(self, words, requests):
        name, key = words[:2]
        if name == b"set":
            self.values[key] = requests.read(int(words[4]) + 2)[:-2]
            return b"STORED\r\n"
        value = self.values.get(key)
        if value is None:
            return b"END\r\n"
        return b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (key, len(value), value)


class KvClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = str(build_client())

    def run_kv(self, spoil, *options, check=True):
        """The client's report, or its words of error if it fails."""
        server = Memcached(spoil)
        self.addCleanup(server.close)
        done = subprocess.run([self.client, "kv", "--server", server.address, "--values-mib", "1",
                               "--seconds", "0.5", "--think-ms", "1", "--connections", "4", *options],
                              capture_output=True, text=True, timeout=20, check=check)
        return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else done.stderr

    def test_fills_first_and_then_gets_and_sets_what_is_right(self):
        seen = []

        def watch(_number, name, key, answer):
            seen.append((name, key))
            return answer
        report = self.run_kv(watch)
        self.assertEqual(report["keys"], _KEYS)
        self.assertEqual(seen[:_KEYS], [("set", f"k{n}") for n in range(_KEYS)])
        self.assertGreater(report["finished_requests"], 100)
        self.assertEqual((report["wrong_values"], report["failed_requests"],
                          report["lost_connections"]), (0, 0, 0))
        names = [name for name, _ in seen[_KEYS:]]
        self.assertTrue(0.03 < names.count("set") / len(names) < 0.25)
        keys = [key for _, key in seen[_KEYS:]]
        self.assertGreater(max(keys.count(key) for key in set(keys)), len(keys) / 30)  # Zipf
        self.assertTrue(report["windows"])

    def test_one_wrong_bit_is_a_wrong_value(self):
        def flip(number, name, _key, answer):
            if number < _KEYS or name == "set":
                return answer
            changed = bytearray(answer)
            changed[-8] ^= 1  # the value's last byte; "\r\nEND\r\n" follows
            return bytes(changed)
        report = self.run_kv(flip, "--set-percent", "0")
        self.assertGreater(report["wrong_values"], 10)
        self.assertEqual(report["wrong_values"], report["failed_requests"])
        self.assertEqual(report["lost_connections"], 0)
        self.assertIn("wrong byte at offset", report["failures"][0]["cause"])

    def test_a_set_that_was_forgotten_leaves_an_old_version(self):
        first = {}

        def forget(number, name, key, answer):
            if number >= _KEYS and name == "get":  # the key's first value, whatever was set since
                return first.setdefault(key, answer)
            return answer
        report = self.run_kv(forget, "--set-percent", "50", "--zipf", "2")
        self.assertGreater(report["wrong_values"], 0)
        self.assertRegex(report["failures"][0]["cause"], r"version \d+, not [1-9]\d* to \d+")

    def test_a_missing_value_is_wrong_and_a_refused_set_is_not(self):
        def spoil(number, name, _key, answer):
            if number < _KEYS:
                return answer
            return b"END\r\n" if name == "get" else b"SERVER_ERROR out of memory\r\n"
        report = self.run_kv(spoil)
        causes = {failure["path"].split()[0]: failure["cause"] for failure in report["failures"]}
        self.assertEqual(causes["get"], "no value")
        self.assertLess(report["wrong_values"], report["failed_requests"])

    def test_a_closed_connection_is_lost_and_its_request_failed(self):
        report = self.run_kv(lambda n, _name, _key, answer: None if n == _KEYS + 5 else answer)
        self.assertEqual((report["lost_connections"], report["failed_requests"],
                          report["wrong_values"]), (1, 1, 0))

    def test_a_server_that_can_not_be_filled_is_said(self):
        words = self.run_kv(lambda n, _name, _key, answer:
                            b"SERVER_ERROR out of memory\r\n" if n == 7 else answer, check=False)
        self.assertIn("fill 127.0.0.1: set k7: SERVER_ERROR out of memory", words)


if __name__ == "__main__":
    unittest.main()
