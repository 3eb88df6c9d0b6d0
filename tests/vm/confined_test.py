#!/usr/bin/env python3
"""QEMUs that confine themselves (-chroot, -runas) once their RAM is mapped: whose hook could not come back
to a daemon that is started again is named and refused while nothing is lost; and where it happens all
the same, `recover` says what brings the hook back.
"""

import contextlib
import os
import pathlib
import subprocess
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

    @contextlib.contextmanager
    def socket_in_the_jail(self, host):
        """Where -chroot has put QEMU, the daemon's folder has the same path."""
        folder = pathlib.Path(self.stage.hosts[host].agent).parent
        inside = self.jail / folder.relative_to("/")
        inside.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", folder, inside], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", inside], check=True)

    def problem(self, host):
        return next(each["problem"] for each in ctl(self.stage.hosts[host], "list").answer["vms"]
                    if each["name"] == VM)

    def test_a_qemu_in_a_chroot_is_named_until_it_can_come_back(self):
        host = self.stage.hosts["a"]
        with self.stage.vm("a", extra=("-chroot", str(self.jail))) as vm:
            await_that("list names it", lambda: _CUT_OFF in self.problem("a"))
            self.assertIn(_CUT_OFF, vm.error_log.read_text())
            with self.socket_in_the_jail("a"):
                await_that("list has no problem", lambda: not self.problem("a"))
                host.restart()
                host.wait_registered(VM)

    def test_a_qemu_of_a_user_who_may_not_connect_is_refused_as_destination(self):
        os.chmod(self.stage.folder, 0o711)
        with self.stage.vm("a") as a, \
                self.stage.vm("b", incoming=True, extra=("-runas", "nobody")) as b:
            a.wait_ready()
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
                with self.socket_in_the_jail("b"):
                    await_that("b has no problem", lambda: not self.problem("b"))
                    relocating = self.stage.relocating()
                    await_that("memory arrives", lambda: ctl(host, "stats", VM).answer.get("state")
                               in ("running", "STATE_RUNNING"), timeout_s=30)
                host.kill(SIGKILL)
                host.start()
                said = await_recovery(host)
                self.assertIn(f"changed its root directory to {self.jail}", said)
            finally:
                self.stage.network.unshape("a")
            with self.socket_in_the_jail("b"):
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
