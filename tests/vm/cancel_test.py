#!/usr/bin/env python3
"""What an operator can do to a relocation besides starting it: look at it, give it up before the
switch, keep the source, let it go, ask who owns the VM.
"""

import json
import signal

import support
from lab import checker
from support import (CANCELLED, MISFIT, NO_SUCH_VM, OK, VM, await_that, ctl, go_on,
                     wait_held)


class Operator(support.StageTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.stage.save_ready_guest()

    def setUp(self):
        self.a = self.enterContext(self.stage.ready_vm("a"))
        self.b = self.enterContext(self.stage.vm("b", incoming=True))
        self.at_a, self.at_b = self.stage.hosts["a"], self.stage.hosts["b"]

    def hold(self, step):
        """The source's daemon stops at `step` from now on; both VMs have registered again."""
        self.stage.renew_daemons(a=[f"hold-at={step}"])
        self.addCleanup(self.stage.renew_daemons)
        for host in (self.at_a, self.at_b):
            host.wait_registered(VM)

    def status(self, vm):
        return vm.qmp.command("query-status")["status"]

    def state_at(self, host):
        return ctl(host, "stats", VM).answer.get("state")

    def assert_code(self, ended, code, *words):
        self.assertEqual(ended.code, code, ended.message)
        for word in words:
            self.assertIn(word, ended.message)

    def assert_moved(self, ended):
        """The guest has arrived at b with its memory intact."""
        self.assert_code(ended, OK)
        self.assertEqual(ended.answer["outcome"], "committed")
        self.assertEqual(self.status(self.b), "running")
        status = checker.wait_full_passes(self.stage.network, self.config.guest.address, 1)
        self.assertEqual(status.errors, 0)

    def test_cancelled_after_prepare_it_runs_on_and_can_be_relocated_later(self):
        prepared = self.stage.relocate("--prepare-only")
        self.assert_code(prepared, OK)
        self.assertEqual(prepared.answer["outcome"], "prepared")
        self.assertEqual(self.status(self.a), "running")
        self.assertGreater(self.b.ram_path.stat().st_blocks, 0)
        self.assert_code(ctl(self.at_a, "cancel", VM), OK)
        await_that("what was allocated for it is free again",
                   lambda: self.b.ram_path.stat().st_blocks == 0)
        self.assertEqual(self.state_at(self.at_a), "cancelled")
        self.assert_code(ctl(self.at_a, "watch", VM), CANCELLED)
        self.assertEqual(self.status(self.a), "running")
        self.assertTrue(self.b.running(), "the waiting QEMU was not used up by a prepare")
        self.assert_moved(self.stage.relocate())

    def test_prepared_then_switched(self):
        self.assert_code(self.stage.relocate("--prepare-only"), OK)
        switched = ctl(self.at_a, "switch", VM)
        self.assert_moved(switched)

    def test_interrupted_while_the_vm_is_stopped_it_goes_on_at_the_source(self):
        self.hold("held")
        relocating = self.stage.relocating()
        wait_held(self.at_a, "held")
        said_before = len(self.at_a.log())
        relocating.signal(signal.SIGINT)
        await_that("the daemon is asked to cancel",
                   lambda: "cancel asked for" in self.at_a.log()[said_before:])
        go_on(self.at_a, "held")
        self.assert_code(relocating.end(), CANCELLED)
        self.assertEqual(self.status(self.a), "running")
        self.assertEqual(self.b.wait_exit(), -signal.SIGKILL)  # it had been opened: used up

    def test_after_the_switch_a_cancel_is_refused_with_the_reason(self):
        self.hold("handed-over")
        relocating = self.stage.relocating()
        wait_held(self.at_a, "handed-over")
        cancelling = support.Background(self.at_a, "cancel", VM)
        go_on(self.at_a, "handed-over")
        refused = cancelling.end()
        self.assert_code(refused, MISFIT, "cancel", "owns it since the switch")
        print(refused.message)
        self.assert_moved(relocating.end())
        self.assert_code(ctl(self.at_a, "cancel", VM), MISFIT, "owns it since the switch")
        self.assert_code(ctl(self.at_b, "cancel", VM), MISFIT, "cancel web1: ")

    def test_a_second_relocation_of_the_same_vm_is_refused(self):
        self.hold("held")
        first = self.stage.relocating()
        wait_held(self.at_a, "held")
        self.assert_code(self.stage.relocate(), MISFIT, "another relocation")
        go_on(self.at_a, "held")
        self.assert_moved(first.end())

    def test_a_kept_source_stays_paused_until_it_is_released(self):
        self.assert_moved(self.stage.relocate("--keep-source"))
        self.assertTrue(self.a.running())
        self.assertNotEqual(self.status(self.a), "running")
        self.assert_code(ctl(self.at_b, "release", VM), NO_SUCH_VM)
        self.assert_code(ctl(self.at_a, "release", VM), OK)
        self.assertEqual(self.a.wait_exit(), 0)

    def test_a_release_before_commit_is_refused(self):
        self.assert_code(self.stage.relocate("--prepare-only"), OK)
        self.assert_code(ctl(self.at_a, "release", VM), MISFIT, "not committed")
        self.assert_code(ctl(self.at_a, "cancel", VM), OK)

    def test_a_paused_vm_stays_paused(self):
        self.a.qmp.command("stop")
        ended = self.stage.relocate()
        self.assert_code(ended, OK)
        self.assertIsNone(ended.answer["downtime_ms"])
        self.assertEqual(self.status(self.b), "paused")
        self.b.qmp.command("cont")
        status = checker.wait_full_passes(self.stage.network, self.config.guest.address, 1)
        self.assertEqual(status.errors, 0)

    def test_list_stats_watch_and_recover_tell_the_same_story_at_both_sides(self):
        for host in (self.at_a, self.at_b):
            (vm,) = ctl(host, "list").answer["vms"]
            self.assertEqual((vm["name"], vm["problem"], vm["session"]), (VM, None, None))
            self.assert_code(ctl(host, "stats", VM), NO_SUCH_VM, "no relocation")
            self.assert_code(ctl(host, "recover", VM), NO_SUCH_VM, "no relocation")
        self.assert_code(self.stage.relocate("--keep-source"), OK)
        await_that("the destination has told its source",
                   lambda: self.state_at(self.at_b) == "committed")
        stats = {host.name: ctl(host, "stats", VM).answer for host in (self.at_a, self.at_b)}
        self.assertEqual({name: each["role"] for name, each in stats.items()},
                         {"a": "source", "b": "destination"})
        for name in ("session", "state", "ram_bytes", "data_bytes", "present_bytes", "faults",
                     "demand_bytes", "bulk_bytes"):
            self.assertEqual(stats["a"][name], stats["b"][name], name)
        self.assertEqual(stats["a"]["present_bytes"], stats["a"]["data_bytes"])
        for host, role in ((self.at_a, "source"), (self.at_b, "destination")):
            (vm,) = ctl(host, "list").answer["vms"]
            self.assertEqual((vm["session"], vm["role"], vm["state"]),
                             (stats["a"]["session"], role, "committed"))
            self.assertTrue(vm["guest_state"].startswith(
                {"source": "postmigrate", "destination": "running"}[role]), vm["guest_state"])
            watched = ctl(host, "watch", VM)
            self.assert_code(watched, OK)
            self.assertEqual(watched.answer["outcome"], "committed")
            recovered = ctl(host, "recover", VM)
            self.assert_code(recovered, OK)
            self.assertEqual(recovered.answer["owner"], "destination", json.dumps(recovered.answer))
            print(f"recover at {host.name}: {recovered.answer['report']}")
        self.assertIn(VM, self.at_a.ctl("list").stdout)


if __name__ == "__main__":
    support.main()
