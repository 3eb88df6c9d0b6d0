#!/usr/bin/env python3
"""Whatever fails before the switch, the guest serves on at its source, postcopyctl says what became
of it, and a second relocation succeeds.

The relocation is held at a step (fault plan hold-at), something is broken there, it goes on.
"""

import contextlib
import subprocess
import time

import support
from lab import checker
from owner_watch import OwnershipTest
from support import (CANCELLED, OK, ROLLED_BACK, UNFINISHED, VM, Background, await_that, go_on,
                     wait_held)

# Host whose daemon is held, step.
STEPS = [("a", "opened"), ("b", "incoming"), ("a", "held"), ("a", "taken"), ("b", "state-loaded"),
         ("a", "loaded")]
# Five times what docs/operations.md promises: 3 s of silence until a peer is taken as lost, 1 s to
# serve again.
SERVES_AGAIN_S = 20
STATE_DIRECTORY_KIB = 64
# What CI plays: each step once, each fault at least once; the label vm-long plays all others.
IN_CI = {("cancelled", "opened"), ("source_daemon_killed", "incoming"),
         ("destination_daemon_killed", "held"), ("link_cut", "taken"),
         ("source_daemon_killed", "state-loaded"), ("cancelled", "loaded")}


class Rollback(OwnershipTest):
    @contextlib.contextmanager
    def held_at(self, holder, step):
        """A relocation that is held at a step, and a check afterwards that all is well again."""
        self.stage.renew_daemons(**{holder: [f"hold-at={step}"]})
        self._logged = {name: len(host.log()) for name, host in self.stage.hosts.items()}
        with self.two_vms() as vms:
            relocating = self.stage.relocating()
            wait_held(self.stage.hosts[holder], step)
            yield relocating, vms
            self.assert_serves_at_the_source(vms)
            self.assert_relocates(vms)

    def assert_serves_at_the_source(self, vms):
        self.check_one_owner("a")
        self.assertTrue(vms["a"].running())

    def assert_relocates(self, vms):
        """A second relocation, to a fresh QEMU if the first was used up."""
        with contextlib.ExitStack() as stack:
            if not vms["b"].running():
                stack.enter_context(self.stage.vm("b", incoming=True))
            ended = self.stage.relocate()
            self.assertEqual(ended.code, OK, ended.message)
            status = checker.wait_full_passes(self.stage.network, self.config.guest.address, 1)
            self.assertEqual(status.errors, 0)

    def logged(self, host, text):
        """Whether the host's daemon has logged `text` in this case."""
        return text in self.stage.hosts[host].log()[self._logged[host]:]

    def await_logged(self, host, text):
        await_that(f"daemon {host} has logged {text}", lambda: self.logged(host, text))

    def await_service(self, vms, began):
        """Waits until the guest runs at the source again; prints how long that took."""
        await_that("the guest runs at the source",
                   lambda: vms["a"].qmp.command("query-status")["status"] == "running",
                   timeout_s=SERVES_AGAIN_S, every_s=0.01)
        print(f"serves again after {time.monotonic() - began:.2f} s", flush=True)

    def destination_daemon_killed(self, holder, step):
        with self.held_at(holder, step) as (relocating, vms):
            self.stage.hosts["b"].kill()
            began = time.monotonic()
            go_on(self.stage.hosts[holder], step)
            self.await_service(vms, began)
            ended = relocating.end()
            self.assertEqual(ended.code, ROLLED_BACK, ended.message)
            self.assertIn("goes on at the source", ended.message)
            self.stage.hosts["b"].faults = []
            self.stage.hosts["b"].start()
            # A QEMU that had begun to load ends by itself when its daemon does.
            await_that("the destination's QEMU has ended or is free again",
                       lambda: not vms["b"].running() or self.logged("b", "never runs here"))

    def source_daemon_killed(self, holder, step):
        with self.held_at(holder, step) as (relocating, vms):
            self.stage.hosts["a"].kill()
            ended = relocating.end()
            self.assertEqual(ended.code, UNFINISHED, ended.message)
            self.assertIn("whether the switch took place is not known", ended.message)
            go_on(self.stage.hosts[holder], step)
            self.stage.hosts["a"].faults = []
            began = time.monotonic()
            self.stage.hosts["a"].start()
            self.await_service(vms, began)
            self.await_logged("b", "rolled-back")

    def link_cut(self, holder, step):
        with self.held_at(holder, step) as (relocating, vms):
            self.addCleanup(self.stage.network.restore, "b")
            self.stage.network.cut("b")
            began = time.monotonic()
            go_on(self.stage.hosts[holder], step)
            self.await_service(vms, began)
            ended = relocating.end()
            self.assertEqual(ended.code, ROLLED_BACK, ended.message)
            self.stage.network.restore("b")
            self.await_logged("b", "rolled-back")

    def cancelled(self, holder, step):
        with self.held_at(holder, step) as (relocating, vms):
            cancelling = Background(self.stage.hosts["a"], "cancel", VM)
            self.await_logged("a", "cancel asked for")
            began = time.monotonic()
            go_on(self.stage.hosts[holder], step)
            self.await_service(vms, began)
            self.assertEqual(relocating.end().code, CANCELLED)
            self.assertEqual(cancelling.end().code, OK)


def _add(what, holder, step):
    name = f"test_{what}_at_{step.replace('-', '_')}"

    def case(self):
        getattr(self, what)(holder, step)
    setattr(Rollback, name, case if (what, step) in IN_CI else support.long_run(case))


for each in STEPS:
    for fault in ("source_daemon_killed", "cancelled"):
        _add(fault, *each)
    if each[1] != "loaded":  # there the hand-over comes next, which does not need the destination
        _add("link_cut", *each)
        _add("destination_daemon_killed", *each)


class FullStateDirectory(OwnershipTest):
    """Both daemons' records are on file systems of their own, small enough to be filled."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for host in cls.stage.hosts.values():
            host.stop()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={STATE_DIRECTORY_KIB}k", "tmpfs",
                            host.state_dir], check=True)
            cls.addClassCleanup(subprocess.run, ["umount", host.state_dir], check=True)
            cls.addClassCleanup(host.stop)

    def fill(self, host):
        file = self.stage.hosts[host].state_dir / "somebody-elses"
        with open(file, "wb", buffering=0) as out, contextlib.suppress(OSError):
            while True:
                out.write(bytes(4096))
        self.addCleanup(file.unlink, missing_ok=True)
        return file

    def refused(self, host):
        self.stage.renew_daemons()
        with self.two_vms() as vms:
            file = self.fill(host)
            ended = self.stage.relocate()
            print(ended)
            self.assertEqual(ended.code, 1)
            self.assertIn("No space left on device", ended.message)
            self.check_one_owner("a")
            self.assertEqual(vms["b"].qmp.command("query-status")["status"], "inmigrate")
            file.unlink()
            self.assertEqual(self.stage.relocate().code, OK)

    def test_the_source_cannot_record_so_nothing_is_touched(self):
        self.refused("a")

    @support.long_run
    def test_the_destination_cannot_record_so_nothing_is_touched(self):
        self.refused("b")

    def fills_up_meanwhile(self, holder, step):
        self.stage.renew_daemons(**{holder: [f"hold-at={step}"]})
        with self.two_vms():
            relocating = self.stage.relocating()
            wait_held(self.stage.hosts[holder], step)
            self.fill("a")
            self.fill("b")
            go_on(self.stage.hosts[holder], step)
            ended = relocating.end()
            self.assertEqual(ended.code, OK, ended.message)
            self.check_one_owner("b")

    @support.long_run
    def test_full_once_the_guest_has_stopped_it_is_relocated_all_the_same(self):
        self.fills_up_meanwhile("a", "held")

    def test_full_before_the_owner_is_recorded_it_is_relocated_all_the_same(self):
        self.fills_up_meanwhile("b", "state-loaded")


if __name__ == "__main__":
    support.main()
