#!/usr/bin/env python3
"""A QEMU that runs as an ordinary user, in QEMU's own sandbox, without access to /dev/userfaultfd, is
relocated as any other: all it needs is the group of the agent's socket.
"""

import os
import pwd
import shutil

import support
from lab import checker, guest, qemu
from support import OK, VM, await_that, ctl

_USER = "nobody"
_SANDBOX = ("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")


class Unprivileged(support.StageTest):
    config = qemu.Config(memory_mib=256, guest=guest.Parameters(files_mib=32, check_mib=64),
                         user=_USER, extra=_SANDBOX)

    def setUp(self):
        os.chmod(self.stage.folder, 0o711)
        # Where the user may read it, whatever the checkout's permissions are.
        self.hook = str(shutil.copy(self.stage.programs.hook, self.stage.folder))
        for host in self.stage.hosts.values():
            host.options = ["--agent-group", "nogroup"]
            host.restart()

    def assert_unprivileged(self, vm):
        with open(f"/proc/{vm.pid}/status") as file:
            status = dict(line.rstrip("\n").split(":", 1) for line in file)
        self.assertEqual(status["Uid"].split(), [str(pwd.getpwnam(_USER).pw_uid)] * 4)
        self.assertEqual(int(status["CapEff"], 16), 0)
        self.assertEqual(status["Seccomp"].strip(), "2")  # a filter
        self.assertNotEqual(os.stat("/dev/userfaultfd").st_mode & 0o007, 0o006)

    def test_it_is_relocated_there_and_back(self):
        for source, destination in (("a", "b"), ("b", "a")):
            self.hop(source, destination)

    def hop(self, source, destination):
        with self.stage.vm(source, hook=self.hook) as a, \
                self.stage.vm(destination, hook=self.hook, incoming=True) as b:
            for vm in (a, b):
                self.assert_unprivileged(vm)
            a.wait_ready()
            self.stage.network.shape(source, 500)
            ended = self.stage.relocate(source=source, destination=destination)
            self.stage.network.unshape(source)
            self.assertEqual(ended.code, OK, ended.message)
            print(f"{ended.answer['faults']} faults, downtime {ended.answer['downtime_ms']:.1f} ms")
            self.assertGreater(ended.answer["faults"], 100)
            status = checker.wait_full_passes(self.stage.network, self.config.guest.address, 1)
            self.assertEqual(status.errors, 0)

    def test_whoever_is_not_of_the_group_runs_unhooked(self):
        self.stage.hosts["a"].options = []
        self.stage.hosts["a"].restart()
        with self.stage.vm("a", register=False, hook=self.hook) as vm:
            vm.wait_ready()
            await_that("it says why", lambda: "Permission denied" in vm.error_log.read_text())
            self.assertNotIn(VM, [each["name"] for each in
                                  ctl(self.stage.hosts["a"], "list").answer["vms"]])


if __name__ == "__main__":
    support.main()
