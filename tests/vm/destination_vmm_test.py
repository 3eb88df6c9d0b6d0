#!/usr/bin/env python3
"""What becomes of the destination's QEMU beside its memory: nothing that was set for the load stays set,
a guest that ends in order is told from one that crashes, disks of a paused guest survive two hops, and
a VM that cannot be started or recorded there goes on at its source.
"""

import contextlib
import fcntl
import os
import signal
import struct
import subprocess
import time

import support
from lab import checker
from owner_watch import OwnershipTest
from support import OK, ROLLED_BACK, VM, await_that, ctl, go_on, wait_held

_SLOW_MBIT = 50  # memory arrives for some seconds
_ON_AFTER_NOTHING = ("x-ignore-shared", "late-block-activate")
_DISK_MIB = 64
_OFD_SETLK = 37
# QEMU's image locks: these bytes say that their holder lets no one else write, or resize.
_UNSHARED = (201, 203)


def on(vm):
    """The migration capabilities that are on, of those that must not stay on."""
    return [each["capability"] for each in vm.qmp.command("query-migrate-capabilities")
            if each["state"] and each["capability"] in _ON_AFTER_NOTHING]


def state(host):
    return ctl(host, "stats", VM).answer.get("state") or ""


class Destination(OwnershipTest):
    def setUp(self):
        self.stage.renew_daemons()
        self.addCleanup(self.stage.network.unshape, "a")

    @contextlib.contextmanager
    def arriving(self):
        """The VM runs at host b and its memory is on its way there."""
        with self.two_vms() as vms:
            self.stage.network.shape("a", _SLOW_MBIT)
            relocating = self.stage.relocating()
            await_that("the guest runs at b", lambda: state(self.stage.hosts["b"]) == "running")
            yield vms, relocating

    def assert_off(self, vm):
        await_that("the load's settings are off", lambda: on(vm) == [], timeout_s=20)

    def test_what_the_load_needed_is_off_while_memory_arrives_and_a_save_has_the_memory(self):
        with self.arriving() as (vms, relocating):
            self.assert_off(vms["b"])
            self.assertEqual(state(self.stage.hosts["b"]), "running", "it should still be arriving")
            self.stage.network.unshape("a")
            self.assertEqual(relocating.end().code, OK)
            self.assertEqual(on(vms["b"]), [])
            saved = self.stage.folder / "saved"
            self.addCleanup(saved.unlink, missing_ok=True)
            support.saved_guest.save(vms["b"], saved)
            self.assertGreater(saved.stat().st_size, 32 << 20)
            vms["b"].kill()
            arguments = support.saved_guest.arguments(saved)
            with self.stage.vm("b", register=False, hook="", extra=arguments) as again:
                support.saved_guest.go_on(again)
                status = checker.wait_full_passes(self.stage.network, self.config.guest.address, 1)
                self.assertEqual(status.errors, 0)

    def test_what_the_load_needed_is_off_after_a_restart_of_the_daemon(self):
        self.stage.renew_daemons(b=["hold-at=resumed"])
        with self.two_vms() as vms:
            self.stage.network.shape("a", _SLOW_MBIT)
            relocating = self.stage.relocating()
            b = self.stage.hosts["b"]
            wait_held(b, "resumed")
            self.assertNotEqual(on(vms["b"]), [], "nothing was set, so this shows nothing")
            b.kill()
            b.faults = []
            b.start()
            go_on(b, "resumed")
            self.assert_off(vms["b"])
            self.stage.network.unshape("a")
            self.assertEqual(relocating.end().code, OK)

    def test_what_the_load_needed_is_off_for_a_guest_that_stays_paused(self):
        with self.two_vms() as vms:
            vms["a"].qmp.command("stop")
            self.assertEqual(self.stage.relocate().code, OK)
            self.assertEqual(on(vms["b"]), [])
            self.assertEqual(vms["b"].qmp.command("query-status")["status"], "paused")

    def ends_in_order(self, end, words):
        with self.arriving() as (vms, relocating):
            self.assert_off(vms["b"])  # its monitor is connected
            end(vms["b"])
            ended = relocating.end()
            self.assertEqual(ended.code, OK, ended.message)
            self.assertIn(words, ended.answer.get("note") or "", ended.answer)
            vms["b"].wait_exit()
            vms["a"].wait_exit()
            for host in self.stage.hosts.values():
                self.assertEqual(state(host), "committed")

    def test_a_vmm_that_is_told_to_quit_while_memory_arrives_ends_in_order(self):
        self.ends_in_order(lambda vm: vm.quit(30), "told to quit")

    def test_a_vmm_that_gets_sigterm_while_memory_arrives_ends_in_order(self):
        self.ends_in_order(lambda vm: vm.kill(signal.SIGTERM), "by a signal")

    def test_a_guest_that_resets_without_reboot_while_memory_arrives_ends_in_order(self):
        self.ends_in_order(lambda vm: vm.qmp.command("system_reset"), "reset")

    def test_a_vmm_that_is_killed_while_memory_arrives_is_a_crash(self):
        with self.arriving() as (vms, relocating):
            vms["b"].kill()
            ended = relocating.end()
            self.assertEqual(ended.code, support.UNFINISHED, ended.message)
            self.assertIn("as in a crash", ended.message)
            recovered = ctl(self.stage.hosts["a"], "recover", VM).answer
            self.assertEqual(recovered.get("owner"), "destination", recovered)
            self.assertIn("Never `cont` its VMM here", recovered.get("report", ""))


class Disk(OwnershipTest):
    def setUp(self):
        self.stage.renew_daemons()

    @contextlib.contextmanager
    def vms_with_disks(self):
        """A guest that runs at a and a QEMU that waits at b, each with a disk file of its own."""
        with contextlib.ExitStack() as stack:
            vms = {}
            for host in "ab":
                vms[host] = stack.enter_context(self.disk_vm(host, incoming=host == "b"))
            vms["a"].wait_ready()
            self._vms = vms
            yield vms

    @contextlib.contextmanager
    def disk_vm(self, host, incoming):
        disk = self.disk(host)
        with open(disk, "wb") as file:
            file.truncate(_DISK_MIB << 20)
        extra = ("-drive", f"file={disk},format=raw,if=none,id=d0", "-device",
                 "virtio-blk-pci,drive=d0,id=disk0")
        with self.stage.vm(host, incoming=incoming, extra=extra) as vm:
            yield vm

    def disk(self, host):
        return self.stage.folder / f"disk-{host}.raw"

    def test_a_paused_guest_with_a_disk_survives_two_hops(self):
        with self.vms_with_disks() as vms:
            vms["a"].qmp.command("stop")
            ended = self.stage.relocate()
            self.assertEqual(ended.code, OK, ended.message)
            vms["a"].wait_exit()
            with self.disk_vm("a", incoming=True) as back:
                ended = self.stage.relocate(source="b", destination="a")
                self.assertEqual(ended.code, OK, ended.message)
                self.assertEqual(back.qmp.command("query-status")["status"], "paused")
                back.qmp.command("cont")
                status = checker.wait_full_passes(self.stage.network, self.config.guest.address, 1)
                self.assertEqual(status.errors, 0)

    def test_a_dirty_bitmap_that_its_owner_has_migrate_arrives(self):
        with self.vms_with_disks() as vms:
            for vm in vms.values():
                vm.qmp.command("migrate-set-capabilities", **{"capabilities": [
                    {"capability": "dirty-bitmaps", "state": True}]})
            vms["a"].qmp.command("block-dirty-bitmap-add", **{"node": "d0", "name": "b0"})
            ended = self.stage.relocate()
            self.assertEqual(ended.code, OK, ended.message)
            nodes = vms["b"].qmp.command("query-named-block-nodes")
            names = [bitmap["name"] for node in nodes for bitmap in node.get("dirty-bitmaps", ())]
            self.assertEqual(names, ["b0"])

    @contextlib.contextmanager
    def lock_of_another(self):
        """Another process's lock on host b's disk, by which QEMU cannot write it."""
        with open(self.disk("b"), "rb") as file:
            for byte in _UNSHARED:
                lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
                fcntl.fcntl(file, _OFD_SETLK, lock)
            yield

    def test_a_start_that_is_refused_is_repeated(self):
        self.stage.renew_daemons(b=["hold-at=state-loaded"])
        with self.vms_with_disks() as vms:
            relocating = self.stage.relocating()
            wait_held(self.stage.hosts["b"], "state-loaded")
            with self.lock_of_another():
                go_on(self.stage.hosts["b"], "state-loaded")
                await_that("QEMU's words are seen", lambda: "lock" in (ctl(
                    self.stage.hosts["b"], "stats", VM).answer.get("error") or ""))
                recovered = ctl(self.stage.hosts["b"], "recover", VM)
                self.assertIn("refuses to start it", str(recovered.answer))
                self.assertNotIn("as in a crash", str(recovered.answer))
            ended = relocating.end()
            self.assertEqual(ended.code, OK, ended.message)
            self.assertEqual(vms["b"].qmp.command("query-status")["status"], "running")

    def test_a_vm_whose_start_is_refused_for_long_goes_on_at_its_source(self):
        self.stage.renew_daemons(b=["hold-at=state-loaded"])
        with self.vms_with_disks() as vms:
            relocating = self.stage.relocating()
            wait_held(self.stage.hosts["b"], "state-loaded")
            with self.lock_of_another():
                go_on(self.stage.hosts["b"], "state-loaded")
                ended = relocating.end()
            print(ended)
            self.assertEqual(ended.code, ROLLED_BACK, ended.message)
            self.assertIn("lock", ended.message)
            vms["b"].wait_exit()
            self.assertEqual(vms["a"].qmp.command("query-status")["status"], "running")
            self.assertEqual(state(self.stage.hosts["b"]), "rolled-back")
            status = checker.wait_full_passes(self.stage.network, self.config.guest.address, 1)
            self.assertEqual(status.errors, 0)


class FailingRecord(OwnershipTest):
    """The destination's records are on a file system of their own, which becomes read-only."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        b = cls.stage.hosts["b"]
        b.stop()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", b.state_dir], check=True)
        cls.addClassCleanup(subprocess.run, ["umount", b.state_dir], check=True)
        cls.addClassCleanup(b.stop)

    def remount(self, how):
        subprocess.run(["mount", "-o", f"remount,{how}", self.stage.hosts["b"].state_dir], check=True)

    def test_a_vm_whose_owner_cannot_be_recorded_goes_on_at_its_source(self):
        self.stage.renew_daemons(b=["hold-at=state-loaded"])
        self.addCleanup(self.remount, "rw")
        b = self.stage.hosts["b"]
        with self.two_vms() as vms:
            relocating = self.stage.relocating()
            wait_held(b, "state-loaded")
            self.remount("ro")
            began = time.monotonic()
            go_on(b, "state-loaded")
            ended = relocating.end()
            print(f"{ended}, after {time.monotonic() - began:.1f} s")
            self.assertEqual(ended.code, ROLLED_BACK, ended.message)
            self.assertIn("Read-only file system", ended.message)
            vms["b"].wait_exit()
            self.check_one_owner("a")
            self.assertEqual(ctl(self.stage.hosts["a"], "recover", VM).answer.get("owner"), "source")
            self.remount("rw")
            await_that("the destination records it", lambda: state(b) == "rolled-back")


if __name__ == "__main__":
    support.main()
