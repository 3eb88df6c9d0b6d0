#!/usr/bin/env python3
"""Another hand on the source's QEMU: a `cont` after the hand-over, a signal while the memory arrives, a
change of the guest's state between prepare and switch. The guest never runs twice, and no byte that the
destination still needs is lost."""

import contextlib
import signal

import support
from lab import checker, guest, qemu
from support import OK, ROLLED_BACK, VM, Background, await_that, go_on, wait_held

LINK_MBIT = 100
ENDED_BY = -signal.SIGSEGV


class ForeignHand(support.StageTest):
    config = qemu.Config(memory_mib=256, ram_options="discard-data=on", guest=guest.Parameters(
        files_mib=24, check_mib=48, check_pause_us=1000, check_order="random"))

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.stage.save_ready_guest()

    def slow_link(self):
        for name in ("a", "b"):
            self.stage.network.shape(name, LINK_MBIT)
            self.addCleanup(self.stage.network.unshape, name)

    def arrived_share(self):
        """Of the memory, at the destination; 0 before the guest runs there."""
        answer = support.ctl(self.stage.hosts["b"], "stats", VM).answer
        if not str(answer.get("state", "")).lower().endswith("running"):
            return 0
        return (answer.get("present_bytes") or 0) / max(answer.get("data_bytes") or 1, 1)

    def relocated_while(self, disturb, share, follow=False):
        """Relocates the guest and calls `disturb` with the source's VM when that share of its memory is
        there; the relocation succeeds and every word that the guest checks is right. With `follow`
        postcopyctl ends meanwhile, and the destination is asked."""
        self.slow_link()
        with self.two_vms() as (a, _):
            relocating = self.stage.relocating()
            await_that("memory arrives", lambda: self.arrived_share() >= share)
            disturb(a)
            left = 1 - self.arrived_share()
            self.assertGreater(left, 0.1, "nothing was missing any more")
            for name in ("a", "b"):  # what is left need not take its time
                self.stage.network.unshape(name)
            ended = relocating.end(timeout_s=120)
            if follow:
                await_that("it is committed", lambda: support.ctl(
                    self.stage.hosts["b"], "stats", VM).answer["state"] == "committed", timeout_s=60)
            else:
                self.assertEqual(ended.code, OK, ended.message)
            status = checker.wait_full_passes(self.stage.network, self.config.guest.address, 2)
            self.assertEqual(status.errors, 0)

    def test_a_start_at_the_source_ends_its_qemu_and_the_memory_arrives_all_the_same(self):
        def start(vm):
            try:
                vm.qmp.command("cont")
            except support.LabError:
                pass  # it may end before it answers
            self.assertEqual(vm.wait_exit(), ENDED_BY)

        self.relocated_while(start, 0.2)
        self.assertIn("another client of its monitor has started it here", self.stage.hosts["a"].log())

    def test_a_start_before_the_fence_is_rolled_back(self):
        with self.two_vms(a=["hold-at=taken"]) as (a, _):
            relocating = self.stage.relocating()
            wait_held(self.stage.hosts["a"], "taken")
            a.qmp.command("cont")
            go_on(self.stage.hosts["a"], "taken")
            ended = relocating.end()
            self.assertEqual(ended.code, ROLLED_BACK, ended.message)
            self.assertIn("another client of its monitor has started the VM", ended.message)
            status = checker.wait_full_passes(self.stage.network, self.config.guest.address, 1)
            self.assertEqual(status.errors, 0)

    def ended_by(self, number):
        def end(vm):
            vm.kill(number)
            vm.wait_exit()
        self.relocated_while(end, 0.6)

    def test_sigterm_of_the_old_qemu_loses_nothing(self):
        self.ended_by(signal.SIGTERM)

    def test_sigkill_of_the_old_qemu_loses_nothing(self):
        self.ended_by(signal.SIGKILL)

    def test_a_daemon_that_restarts_after_the_old_qemu_has_ended_serves_its_files(self):
        def restart(vm):
            a = self.stage.hosts["a"]
            a.kill()
            vm.kill()
            vm.wait_exit()
            a.start()
            await_that("the memory is served again",
                       lambda: "served again to" in a.log() and "from its RAM files" in a.log())
        self.relocated_while(restart, 0.3, follow=True)

    @contextlib.contextmanager
    def two_vms(self, **faults):
        self.stage.renew_daemons(**faults)
        with self.stage.ready_vm("a") as a, self.stage.vm("b", incoming=True) as b:
            yield a, b

    def assert_as_before(self, vm):
        """QEMU's settings are its owner's again, and guest RAM is no longer fenced."""
        on = {each["capability"] for each in vm.qmp.command("query-migrate-capabilities")
              if each["state"]}
        self.assertFalse(on & {"x-ignore-shared", "pause-before-switchover"}, on)
        self.assertTrue(vm.qmp.command("qom-get", path="/objects/ram", property="discard-data"))
        before = vm.qmp.command("query-status")["status"]
        if before != "running":
            vm.qmp.command("cont")
        status = checker.wait_full_passes(self.stage.network, self.config.guest.address, 1)
        self.assertEqual(status.errors, 0)

    def test_a_roll_back_lifts_the_fence_and_restores_the_settings(self):
        with self.two_vms(a=["hold-at=fenced"]) as (a, _):
            relocating = self.stage.relocating()
            wait_held(self.stage.hosts["a"], "fenced")
            cancelling = Background(self.stage.hosts["a"], "cancel", VM)
            await_that("the cancel has come",
                       lambda: "cancel" in self.stage.hosts["a"].log().splitlines()[-1])
            go_on(self.stage.hosts["a"], "fenced")
            self.assertNotEqual(relocating.end().code, OK)
            self.assertEqual(cancelling.end().code, OK)
            self.assertEqual(a.qmp.command("query-status")["status"], "running")
            self.assert_as_before(a)

    def test_a_daemon_that_is_killed_behind_the_fence_is_followed_by_one_that_lifts_it(self):
        with self.two_vms(a=["hold-at=fenced"]) as (a, _):
            relocating = self.stage.relocating()
            wait_held(self.stage.hosts["a"], "fenced")
            self.stage.hosts["a"].kill()
            relocating.end()
            go_on(self.stage.hosts["a"], "fenced")
            self.stage.hosts["a"].faults = []
            self.stage.hosts["a"].start()
            await_that("the guest runs at the source",
                       lambda: a.qmp.command("query-status")["status"] == "running", timeout_s=30)
            status = checker.wait_full_passes(self.stage.network, self.config.guest.address, 1)
            self.assertEqual(status.errors, 0)
            on = {each["capability"] for each in a.qmp.command("query-migrate-capabilities")
                  if each["state"]}
            self.assertFalse(on & {"x-ignore-shared", "pause-before-switchover"}, on)

    def prepared(self):
        ended = self.stage.relocate("--prepare-only")
        self.assertEqual(ended.code, OK, ended.message)

    def switch(self):
        return support.ctl(self.stage.hosts["a"], "switch", VM)

    def test_a_machine_that_is_prepared_has_its_owners_settings(self):
        with self.two_vms() as (a, _):
            self.prepared()
            self.assert_as_before(a)
            self.assertEqual(support.ctl(self.stage.hosts["a"], "cancel", VM).code, OK)

    def test_a_guest_that_powers_off_before_the_switch_has_ended_in_order(self):
        with self.two_vms() as (a, b):
            self.prepared()
            a.qmp.command("quit")
            a.wait_exit()
            ended = self.switch()
            self.assertEqual(ended.code, ROLLED_BACK, ended.message)
            self.assertIn("has ended here before the switch", ended.message)
            self.assertNotIn("crash", ended.message)
            self.assertEqual(b.qmp.command("query-status")["status"], "inmigrate")

    def test_a_guest_that_its_operator_paused_after_prepare_stays_paused_when_rolled_back(self):
        with self.two_vms() as (a, b):
            self.prepared()
            a.qmp.command("stop")
            b.kill()
            ended = self.switch()
            self.assertEqual(ended.code, ROLLED_BACK, ended.message)
            self.assertEqual(a.qmp.command("query-status")["status"], "paused")
            self.assert_as_before(a)


if __name__ == "__main__":
    support.main()
