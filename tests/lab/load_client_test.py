#!/usr/bin/env python3
"""Tests of the load client against a server on loopback that misbehaves as each test says.

Needs the built client (POSTCOPY_LOAD_CLIENT, or a compiler to build it); no namespace, no guest.
"""

import contextlib
import json
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

if __package__ in (None, ""):  # run as a program
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
    __package__ = "lab"
from . import guest
from .content import FILE_BYTES, file_content
from .load import build_client


def response(body, status="200 OK"):
    return f"HTTP/1.1 {status}\r\nServer: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


class Server:
    """Answers the n-th request (from 0, over all connections) with what `answer(n, path)` returns:
    a list of byte strings, sent one by one. An empty list closes the connection; None: no
    answer."""

    def __init__(self, answer):
        self._answer, self._count, self._lock = answer, 0, threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection, contextlib.suppress(ConnectionError):  # the client may leave at any time
            while request := connection.recv(4096):
                with self._lock:
                    number, self._count = self._count, self._count + 1
                chunks = self._answer(number, request.split()[1].decode())
                if chunks is not None and not chunks:
                    return
                for chunk in chunks or []:
                    connection.sendall(chunk)
                    time.sleep(0.001 if len(chunks) > 1 else 0)


class LoadClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = str(build_client())
        cls.files = [file_content(7, n) for n in range(3)]

    def serve(self, answer):
        server = Server(answer)
        self.addCleanup(server.close)
        return server.url

    def good(self, _number, path):
        return [response(self.files[int(path.rsplit("/", 1)[1])])]

    def run_load(self, answer, *options):
        done = subprocess.run([self.client, "run", "--url-base", self.serve(answer), "--files", "3",
                               "--seconds", "0.5", *options], capture_output=True, text=True,
                              timeout=20, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    def verify(self, answer, *options):
        done = subprocess.run([self.client, "verify", "--url-base", self.serve(answer),
                               "--files", "3", "--seed", "7", *options],
                              capture_output=True, text=True, timeout=20, check=False)
        return done.returncode, json.loads(done.stdout)

    def test_right_responses_are_counted_in_windows_of_real_time(self):
        report = self.run_load(self.good, "--connections", "2")
        self.assertGreater(report["finished_requests"], 10)
        self.assertEqual(report["failed_requests"] + report["lost_connections"], 0)
        self.assertIn(len(report["windows"]), (4, 5))
        self.assertTrue(all(w["start_ms"] % 100 == 0 for w in report["windows"]))
        self.assertLess(abs(report["end_ms"] / 1000 - time.time()), 5)

    def test_a_wrong_length_and_a_wrong_status_fail_the_request_only(self):
        def answer(number, path):
            if number == 1:
                return [response(b"short")]
            if number == 2:
                return [response(b"x" * FILE_BYTES, "503 No")]
            return self.good(number, path)
        report = self.run_load(answer, "--connections", "1")
        self.assertEqual([f["cause"] for f in report["failures"]], ["length 5", "status 503"])
        self.assertEqual(report["lost_connections"], 0)

    def test_a_closed_connection_is_lost_and_its_request_failed_not_repeated(self):
        report = self.run_load(lambda n, path: [] if n == 1 else self.good(n, path),
                               "--connections", "1")
        self.assertEqual((report["failed_requests"], report["lost_connections"]), (1, 1))
        self.assertGreater(report["finished_requests"], 2)
        self.assertGreaterEqual(report["longest_gap_ms"], 100)

    def test_no_answer_is_unfinished_without_a_time_out_and_failed_with_one(self):
        def answer(number, path):
            return None if number == 1 else self.good(number, path)
        patient = self.run_load(answer, "--connections", "1")
        self.assertEqual((patient["unfinished_requests"], patient["failed_requests"]), (1, 0))
        self.assertGreater(patient["longest_gap_ms"], 300)
        strict = self.run_load(answer, "--connections", "1", "--timeout-ms", "100")
        self.assertEqual([f["cause"] for f in strict["failures"]], ["time-out"])

    def test_sigterm_ends_the_run_and_started_tells_the_first_response(self):
        process = subprocess.Popen([self.client, "run", "--url-base", self.serve(self.good),
                                    "--files", "3"], stdout=subprocess.PIPE, text=True)
        self.assertEqual(process.stdout.readline(), "started\n")
        process.send_signal(signal.SIGTERM)
        self.assertIn("windows", json.loads(process.communicate(timeout=10)[0]))
        self.assertEqual(process.returncode, 0)

    def test_verify_takes_right_files_in_any_chunks(self):
        def answer(number, path):
            whole = self.good(number, path)[0]
            return [whole[:5], whole[5:60], whole[60:61], whole[61:40000], whole[40000:]]
        code, report = self.verify(answer)
        self.assertEqual((code, report["checked"], report["wrong"]), (0, 3, 0))

    def test_verify_finds_one_wrong_bit(self):
        def answer(number, path):
            body = bytearray(self.good(number, path)[0])
            body[-1] ^= path.endswith("/2")
            return [bytes(body)]
        code, report = self.verify(answer)
        self.assertEqual((code, report["wrong"], report["first_wrong"]), (1, 1, "/f/2: content"))

    def test_verify_takes_what_the_guest_makes_of_either_content(self):
        program = str(guest.busybox())
        for content, options in (("random", ()), ("realistic", ("--program", program))):
            with tempfile.TemporaryDirectory() as folder:
                maker = pathlib.Path(folder, "mkfiles")
                maker.write_bytes(guest.compiled("mkfiles", folder))
                maker.chmod(0o755)
                subprocess.run([maker, folder, "3", "7", content, program], check=True)
                made = [pathlib.Path(folder, str(n)).read_bytes() for n in range(3)]
            def answer(_number, path):
                return [response(made[int(path.rsplit("/", 1)[1])])]
            code, report = self.verify(answer, *options)
            self.assertEqual((code, report["checked"], report["wrong"]), (0, 3, 0), content)
            pages = b"".join(made)
            zero = sum(pages[i:i + 4096] == bytes(4096) for i in range(0, len(pages), 4096))
            self.assertEqual(zero > 0, content == "realistic")

    def test_verify_does_not_call_missing_files_right(self):
        code, report = self.verify(lambda n, path: [])
        self.assertEqual(code, 3)
        self.assertIn("closed by the server", report["error"])

    def test_verify_gives_up_on_a_silent_server(self):
        code, report = self.verify(lambda n, path: None, "--timeout-ms", "200")
        self.assertEqual((code, report["checked"]), (3, 0))

    def test_usage_errors_exit_with_2(self):
        for arguments in ([], ["run"], ["run", "--url-base", "ftp://x"],
                          ["verify", "--files", "0"]):
            done = subprocess.run([self.client, *arguments], capture_output=True, check=False)
            self.assertEqual(done.returncode, 2, arguments)


if __name__ == "__main__":
    unittest.main()
