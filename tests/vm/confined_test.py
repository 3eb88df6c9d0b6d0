#!/usr/bin/env python3
"""QEMUs that confine themselves (-chroot, -runas) once their RAM is mapped: whose hook could not come back
to a daemon that is started again is named and refused while nothing is lost; and where it happens all
the same, `recover` says what brings the hook back.
"""

import os
import pathlib
from signal import SIGKILL

import support
from lab import guest, qemu
from support import MISFIT, VM, await_that, ctl

_CUT_OFF = "could not come back to a daemon that is started again"


class Confined(support.StageTest):
    config = qemu.Config(memory_mib=256, guest=guest.Parameters(files_mib=32, check_mib=64))

    def setUp(self):
        self.jail = self.stage.folder / "jail"
        self.jail.mkdir(exist_ok=True)

    def inside(self, host):
        """The path of the daemon's socket as a QEMU in the jail sees it, from outside."""
        return self.jail / pathlib.Path(self.stage.hosts[host].agent).relative_to("/")

    def open_jail(self, host):
        """The socket has the same path in the jail. A link and no mount: QEMU runs in a mount namespace of
        its own, which later mounts may not reach."""
        inside = self.inside(host)
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.unlink(missing_ok=True)
        os.link(self.stage.hosts[host].agent, inside)

    def problem(self, host):
        return next(each["problem"] or "" for each in ctl(self.stage.hosts[host], "list").answer["vms"]
                    if each["name"] == VM)

    def test_a_qemu_in_a_chroot_is_named_until_it_can_come_back(self):
        host = self.stage.hosts["a"]
        with self.stage.vm("a", extra=("-chroot", str(self.jail))) as vm:
            await_that("list names it", lambda: _CUT_OFF in self.problem("a"))
            self.assertIn(_CUT_OFF, vm.error_log.read_text())
            self.open_jail("a")
            await_that("list has no problem", lambda: not self.problem("a"))
            host.restart()
            self.open_jail("a")  # a new socket
            host.wait_registered(VM)

    def test_a_qemu_of_a_user_who_may_not_connect_is_refused_as_destination(self):
        os.chmod(self.stage.folder, 0o711)
        with self.stage.vm("a") as a, \
                self.stage.vm("b", incoming=True, extra=("-runas", "nobody")) as b:
            ended = self.stage.relocate()
            self.assertEqual(ended.code, MISFIT, ended.message)
            self.assertIn(_CUT_OFF, ended.message)
            self.assertIn("Permission denied", ended.message)
            self.assertEqual(a.qmp.command("query-status")["status"], "running")
            self.assertTrue(b.running())

    def test_recover_says_what_brings_the_hook_back(self):
        host = self.stage.hosts["b"]
        with self.stage.vm("a") as a, \
                self.stage.vm("b", incoming=True, extra=("-chroot", str(self.jail))):
            a.wait_ready()
            self.stage.network.shape("a", 100)
            try:
                self.open_jail("b")
                await_that("b has no problem", lambda: not self.problem("b"))
                relocating = self.stage.relocating()
                await_that("memory arrives", lambda: ctl(host, "stats", VM).answer.get("state")
                           == "running", timeout_s=30)
                self.inside("b").unlink()
                host.kill(SIGKILL)
                host.start()
                said = await_recovery(host)
                self.assertIn(f"changed its root directory to {self.jail}", said)
            finally:
                self.stage.network.unshape("a")
            self.open_jail("b")
            host.wait_registered(VM)
            relocating.end()
            await_that("the source has been let go", lambda: not a.running(), timeout_s=60)


def await_recovery(host):
    """What `recover` says once it is not only that the hook has yet to come."""
    said = []

    def named():
        said[:] = [ctl(host, "recover", VM).answer.get("report", "")]
        return "root directory" in said[0]
    await_that("recover names the cause", named)
    return said[0]


if __name__ == "__main__":
    support.main()
