#!/usr/bin/env python3
"""The daemon as its service manager sees it: what it reads, when it is ready, how it ends."""

import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

from programs import CTL, DAEMON


class ServiceTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.config = self.folder / "uffd-server.toml"
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.manager.close)
        self.manager.bind(f"{self.folder}/notify")
        self.manager.settimeout(20)

    def configure(self, *lines):
        """Writes the configuration; directories and sockets are the test's own."""
        self.config.write_text("\n".join([
            f'listen = "unix:{self.folder}/control"', 'data-listen = "127.0.0.1:0"',
            f'runtime-dir = "{self.folder}/run"', f'state-dir = "{self.folder}/state"', *lines]))

    def start(self, *arguments):
        daemon = subprocess.Popen(
            [DAEMON, "--config", self.config, *arguments], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={"NOTIFY_SOCKET": f"{self.folder}/notify"})

        def end():
            daemon.kill()
            daemon.communicate()
        self.addCleanup(end)
        return daemon

    def told(self):
        return self.manager.recv(4096).decode()

    def test_ready_when_it_answers_and_stopping_when_it_is_told_to(self):
        self.configure()
        daemon = self.start()
        self.assertEqual(self.told(), "READY=1")
        answer = subprocess.run([CTL, "list", "--daemon", f"unix:{self.folder}/control"],
                                capture_output=True, text=True, check=False, timeout=20)
        self.assertEqual(answer.returncode, 0, answer.stderr)
        self.assertTrue((self.folder / "run/agent.sock").is_socket())
        daemon.send_signal(signal.SIGTERM)
        self.assertEqual(self.told(), "STOPPING=1")
        self.assertEqual(daemon.wait(20), 0)

    def test_command_line_wins_over_the_file(self):
        self.configure()
        daemon = self.start("--listen", f"unix:{self.folder}/other")
        self.assertEqual(self.told(), "READY=1")
        self.assertTrue((self.folder / "other").is_socket())
        self.assertFalse((self.folder / "control").exists())
        daemon.terminate()
        self.assertEqual(daemon.wait(20), 0)

    def test_wrong_file_keeps_it_from_starting(self):
        self.configure("listen-on = 7700")
        daemon = self.start()
        _, complaint = daemon.communicate(timeout=20)
        self.assertEqual(daemon.returncode, 2)
        self.assertEqual(complaint, f"uffd-server: read {self.config}, line 5, key listen-on: "
                                    "there is no such key\n")


if __name__ == "__main__":
    sys.exit(unittest.main())
