#!/usr/bin/env python3
"""What gives a VM two owners where the switch is done in a naive order ends with one here: the link
is cut at the end of the device state, and somebody sends `cont` to a QEMU that is still incoming.
"""

import contextlib
import threading

import support
from lab.commands import LabError
from lab.qmp import QmpError
from owner_watch import OwnershipTest
from support import OK, ROLLED_BACK, VM, await_that, ctl, go_on, wait_held


class NaiveOrder(OwnershipTest):
    def held(self, step, host="a"):
        """Both daemons anew; that of `host` will stop at `step`."""
        self.stage.renew_daemons(**{host: [f"hold-at={step}"]})
        return self.stage.hosts[host]

    def state_at(self, host):
        return ctl(self.stage.hosts[host], "stats", VM).answer.get("state")

    def cut(self):
        self.stage.network.cut("b")
        self.addCleanup(self.stage.network.restore, "b")

    def test_the_link_is_cut_when_the_device_state_has_left_qemu(self):
        holder = self.held("taken")
        with self.two_vms() as vms:
            relocating = self.stage.relocating()
            wait_held(holder, "taken")
            self.cut()
            go_on(holder, "taken")
            ended = relocating.end()
            print(ended)
            self.assertEqual(ended.code, ROLLED_BACK, ended.message)
            self.stage.network.restore("b")
            await_that("the destination has given up", lambda: self.state_at("b") ==
                       "rolled-back")
            self.check_one_owner("a")
            self.assertFalse(vms["b"].running(), "the opened QEMU waits on")

    def test_the_link_is_cut_when_the_destination_has_loaded_the_state(self):
        holder = self.held("loaded")
        with self.two_vms():
            relocating = self.stage.relocating()
            wait_held(holder, "loaded")
            self.cut()
            go_on(holder, "loaded")
            await_that("the source has handed over in vain",
                       lambda: "hand-over not confirmed" in holder.log())
            self.stage.network.restore("b")
            ended = relocating.end()
            print(ended)
            self.assertEqual(ended.code, OK, ended.message)
            self.check_one_owner("b")

    def test_the_link_is_cut_while_the_destination_loads_the_state(self):
        """It has loaded it, but its answer does not arrive: the source goes on, so it must not."""
        holder = self.held("state-loaded", "b")
        with self.two_vms() as vms:
            relocating = self.stage.relocating()
            wait_held(holder, "state-loaded")
            self.cut()
            go_on(holder, "state-loaded")
            ended = relocating.end()
            print(ended)
            self.assertEqual(ended.code, ROLLED_BACK, ended.message)
            self.stage.network.restore("b")
            await_that("the destination has given up", lambda: self.state_at("b") ==
                       "rolled-back")
            self.check_one_owner("a")
            self.assertFalse(vms["b"].running(), "the loaded QEMU waits on")

    def test_cont_to_the_incoming_qemu_before_the_state_comes(self):
        holder = self.held("held")
        with self.two_vms() as vms:
            relocating = self.stage.relocating()
            wait_held(holder, "held")
            vms["b"].qmp.command("cont")
            go_on(holder, "held")
            ended = relocating.end()
            print(ended)
            self.assertEqual(ended.code, OK, ended.message)
            self.check_one_owner("b")

    def test_cont_to_the_destination_before_it_is_the_owner(self):
        """Its QEMU has all it takes to run and is told to by somebody else: its daemon ends it."""
        holder = self.held("loaded")
        with self.two_vms() as vms:
            relocating = self.stage.relocating()
            wait_held(holder, "loaded")
            with contextlib.suppress(LabError):  # it may not live to answer
                vms["b"].qmp.command("cont")
            vms["b"].wait_exit()
            go_on(holder, "loaded")
            ended = relocating.end()
            print(ended)
            self.assertEqual(ended.code, ROLLED_BACK, ended.message)
            self.check_one_owner("a")

    def test_cont_to_the_destination_while_the_source_cannot_reach_it(self):
        """The same with the link cut, so that the source goes on without its word."""
        holder = self.held("state-loaded", "b")
        with self.two_vms() as vms:
            relocating = self.stage.relocating()
            wait_held(holder, "state-loaded")
            self.cut()
            with contextlib.suppress(LabError):  # it may not live to answer
                vms["b"].qmp.command("cont")
            vms["b"].wait_exit()
            ended = relocating.end()
            print(ended)
            self.assertEqual(ended.code, ROLLED_BACK, ended.message)
            go_on(holder, "state-loaded")
            self.stage.network.restore("b")
            self.check_one_owner("a")

    def test_cont_to_the_incoming_qemu_all_the_time(self):
        holder = self.held("opened")
        with self.two_vms() as vms:
            relocating = self.stage.relocating()
            wait_held(holder, "opened")
            insisting = Insisting(vms["b"])
            go_on(holder, "opened")
            ended = relocating.end()
            insisting.stop()
            print(f"{ended}; {insisting.times} times cont")
            self.assertIn(ended.code, (OK, ROLLED_BACK), ended.message)
            self.check_one_owner("b" if ended.code == OK else "a")


class Insisting(threading.Thread):
    """Sends `cont` to a VM's QEMU again and again, until stop() or its end."""

    def __init__(self, vm):
        super().__init__(daemon=True)
        self._qmp = vm.qmp
        self._stopping = threading.Event()
        self.times = 0
        self.start()

    def run(self):
        while not self._stopping.is_set():
            try:
                self._qmp.command("cont", timeout_s=20)
                self.times += 1
            except QmpError:
                pass
            except LabError:
                return  # it has ended

    def stop(self):
        self._stopping.set()
        self.join()


if __name__ == "__main__":
    support.main()
