#!/usr/bin/env python3
"""The commands of the README's "Use it" and of the manual pages' EXAMPLES, as they stand there, on two
hosts (manual.py).
"""

import json
import os
import pathlib
import re
import signal

import support
from manual import ADDRESSES, ManualTest
from support import await_that

_PROJECT = pathlib.Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```sh (a|both)( service)?\n(.*?)^```$", re.M | re.S)


def readme():
    """The blocks of "Use it": host, whether it is for the service manager, commands."""
    text = (_PROJECT / "README.md").read_text().partition("\n## Use it\n")[2].partition("\n## ")[0]
    return _BLOCK.findall(text)


def examples(page):
    """The texts of a manual page's EXAMPLES, as man shows them."""
    text = (_PROJECT / "docs/man" / page).read_text().partition("\n.SH EXAMPLES\n")[2].partition(
        "\n.SH ")[0]
    return [example.replace("\\-", "-").replace("\\e", "\\")
            for example in re.findall(r"^\.EX\n(.*?)^\.EE$", text, re.M | re.S)]


class Documents(ManualTest):
    def play(self, host, text):
        """Types `text`, which is written for host a, on `host`."""
        if host == "b":
            text = text.replace(ADDRESSES["a"], ADDRESSES["b"])
        print(f"--- {host}\n{text.rstrip()}")
        print(self.shells[host].run(self.adapted(text)), flush=True)

    def start(self, command):
        """The VM on host a, and one that waits for it on host b."""
        self.assertIn("-daemonize", command)
        self.play("a", command)
        self.play("b", command.replace("-daemonize", "-daemonize -S -incoming defer"))
        for host in "ab":
            await_that("the VM registers", lambda h=host: self.vms(h))

    def vms(self, host):
        listed = self.shells[host].run(
            f"postcopyctl --daemon {self.network.address(host)} list --json")
        return json.loads(listed)["vms"]

    def assert_moved(self):
        self.assertEqual([(vm["name"], vm["guest_state"]) for vm in self.vms("b")],
                         [("web1", "running")])
        await_that("the QEMU on host a has ended", lambda: not self.vms("a"))

    def test_the_readme(self):
        blocks = readme()
        self.assertEqual([(where, bool(service)) for where, service, _ in blocks],
                         [("both", False), ("both", True), ("a", False), ("a", False)])
        configure, _, vm, move = (text for _, _, text in blocks)
        for host in "ab":
            self.play(host, configure)
            self.start_daemon(host)
        self.start(vm)
        self.play("a", move)
        self.assert_moved()

    def test_the_examples_of_the_daemons_page(self):
        listen, vm, move = examples("uffd-server.8")
        for host in "ab":
            command = listen if host == "a" else listen.replace(ADDRESSES["a"], ADDRESSES["b"])
            self.start_daemon(host, self.adapted(command).strip())
        self.start(vm)
        self.play("a", move)
        self.assert_moved()

    def test_the_examples_of_the_file_and_of_postcopyctl(self):
        (configuration,) = examples("uffd-server.toml.5")
        move, in_two_steps, look = examples("postcopyctl.1")
        _, vm, _ = examples("uffd-server.8")
        for host in "ab":
            self.play(host, f"cat >/etc/postcopy/uffd-server.toml <<'END'\n{configuration}END\n")
            self.start_daemon(host)
        for example in (move, in_two_steps):
            self.start(vm)
            self.play("a", example)
            self.assert_moved()
            self.play("a", look)
            os.kill(self.vms("b")[0]["pid"], signal.SIGKILL)
            await_that("the QEMU on host b has ended", lambda: not self.vms("b"))


if __name__ == "__main__":
    support.main()
