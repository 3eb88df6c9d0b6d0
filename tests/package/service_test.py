#!/usr/bin/env python3
"""The daemon as its service manager sees it: what it reads, when it is ready, how it ends."""

import os
import pathlib
import pwd
import shutil
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

    def start(self, *arguments, program=DAEMON, **process):
        daemon = subprocess.Popen(
            [program, "--config", self.config, *arguments], text=True, **process,
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

    def test_a_second_daemon_on_either_directory_ends_at_once(self):
        self.configure()
        first = self.start()
        self.assertEqual(self.told(), "READY=1")
        for own, shared in (("runtime-dir", "state"), ("state-dir", "run")):
            second = self.start(f"--{own}", f"{self.folder}/own", "--listen",
                                f"unix:{self.folder}/second")
            self.assertEqual(second.wait(20), 1)
            self.assertIn(f"another uffd-server (pid {first.pid}) uses {self.folder}/{shared}",
                          second.stderr.read())
        self.assertTrue((self.folder / "run/agent.sock").is_socket())
        first.kill()
        first.wait(20)
        self.start()
        self.assertEqual(self.told(), "READY=1")

    def test_command_line_wins_over_the_file(self):
        self.configure()
        daemon = self.start("--listen", f"unix:{self.folder}/other")
        self.assertEqual(self.told(), "READY=1")
        self.assertTrue((self.folder / "other").is_socket())
        self.assertFalse((self.folder / "control").exists())
        daemon.terminate()
        self.assertEqual(daemon.wait(20), 0)

    @unittest.skipUnless(os.geteuid() == 0, "only root can become another user")
    def test_a_daemon_that_is_not_root_says_what_will_not_work(self):
        nobody = pwd.getpwnam("nobody")
        self.configure()
        program = shutil.copy(DAEMON, self.folder)  # where that user may read it
        for path in (self.folder, self.folder / "notify", self.config):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        daemon = self.start(program=program, user=nobody.pw_uid, group=nobody.pw_gid)
        self.assertEqual(self.told(), "READY=1")
        daemon.terminate()
        log, _ = daemon.communicate(timeout=20)
        self.assertIn(f"uffd-server runs as user {nobody.pw_uid}, not as root: ", log)

    def test_addresses_that_are_none_are_named_with_line_and_key_or_option(self):
        for line, cause in (
                ('advertise = "10.0.0.7"', "key advertise: 10.0.0.7: it names no port"),
                ('advertise = "0.0.0.0:7700"', "key advertise: 0.0.0.0:7700: it means every address"),
                ('advertise-data = ["10.0.0.7:abc"]', "key advertise-data: 10.0.0.7:abc: the port is"),
                ('sutdown-wait = 3', "there is no such key, did you mean shutdown-wait?")):
            self.configure(line)
            daemon = self.start()
            _, complaint = daemon.communicate(timeout=20)
            self.assertEqual(daemon.returncode, 2, complaint)
            self.assertTrue(complaint.startswith(f"uffd-server: read {self.config}, line 5, "), complaint)
            self.assertIn(cause, complaint)
        self.configure()
        for words, cause in ((["--listen", "10.0.0.7:99999"], "--listen: 10.0.0.7:99999: the port is not"),
                             (["--data-listen", ":7701"], "--data-listen: :7701: it names no host"),
                             (["--lisen", "x"], "there is no option --lisen, did you mean --listen?")):
            daemon = self.start(*words)
            _, complaint = daemon.communicate(timeout=20)
            self.assertEqual(daemon.returncode, 2, complaint)
            self.assertTrue(complaint.startswith("uffd-server: "), complaint)
            self.assertIn(cause, complaint)

    def test_an_address_without_a_port_has_the_default_one(self):
        self.config.write_text("\n".join([
            'listen = "127.0.0.9"', f'runtime-dir = "{self.folder}/run"',
            f'state-dir = "{self.folder}/state"']))
        daemon = self.start()
        self.assertEqual(self.told(), "READY=1")
        daemon.terminate()
        log, _ = daemon.communicate(timeout=20)
        self.assertIn("control 127.0.0.9:7700, data 127.0.0.9:7701", log)

    def test_wrong_file_keeps_it_from_starting(self):
        self.configure("listen-on = 7700")
        daemon = self.start()
        _, complaint = daemon.communicate(timeout=20)
        self.assertEqual(daemon.returncode, 2)
        self.assertEqual(complaint, f"uffd-server: read {self.config}, line 5, key listen-on: "
                                    "there is no such key\n")


if __name__ == "__main__":
    sys.exit(unittest.main())
