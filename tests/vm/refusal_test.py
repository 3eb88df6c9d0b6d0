#!/usr/bin/env python3
"""A relocation that cannot work is refused before anything stops: with a message that names the
cause, its exit code, and the VM at the source serving on.

Guests are not waited for: they boot while they are refused. VFIO needs hardware; its refusal is
shown with a scripted monitor in tests/vmm.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import time

import support
from lab import guest, qemu
from lab.releases import INSTALLED
from support import MISFIT, NO_SUCH_VM, OK, UNREACHABLE, USAGE, VM

# No tap: none of these guests is talked to.
_NEIGHBOUR = b"not your" * (1 << 20)  # 8 MiB
_NO_NETWORK = guest.Parameters(files_mib=0, check_mib=0)


class Refusal(support.StageTest):
    config = qemu.Config(memory_mib=128, guest=_NO_NETWORK)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for host in "ab":
            cls.stage.network.add_tap(host, "tap1")

    def setUp(self):
        self._vms = self.enterContext(contextlib.ExitStack())

    def vm(self, host, **changes):
        return self._vms.enter_context(self.stage.vm(host, **changes))

    def assert_refused(self, source, code, *words, options=(), **which):
        """The relocation ends with `code` and a complaint that has all `words`; the source's guest
        has never stopped and can still be relocated as far as its daemon is concerned."""
        source.qmp.poll_events()
        ended = self.stage.relocate(*options, **which)
        print(ended)
        self.assertEqual(ended.code, code, ended.message)
        for word in words:
            self.assertIn(word, ended.message)
        self.assertEqual(source.qmp.command("query-status")["status"], "running")
        stops = [event.name for event in source.qmp.poll_events() if event.name == "STOP"]
        self.assertEqual(stops, [], "the guest was stopped")
        enabled = [each["capability"] for each in source.qmp.command("query-migrate-capabilities")
                   if each["state"]]
        self.assertNotIn("x-ignore-shared", enabled, "settings were left changed")

    def test_a_vm_that_the_daemon_does_not_know(self):
        a = self.vm("a")
        self.assert_refused(a, NO_SUCH_VM, "web9", vm="web9")

    def test_a_vm_that_the_destination_does_not_know(self):
        a = self.vm("a")
        self.assert_refused(a, MISFIT, "destination", VM)

    def test_ram_of_another_size(self):
        a = self.vm("a")
        self.vm("b", incoming=True, memory_mib=192)
        self.assert_refused(a, MISFIT, str(128 << 20), str(192 << 20))

    def test_ram_under_another_name(self):
        a = self.vm("a")
        self.vm("b", incoming=True, edits=[("id=ram,", "id=memory,"),
                                            ("memory-backend=ram", "memory-backend=memory")])
        self.assert_refused(a, MISFIT, "ram", "memory")

    def test_ram_that_is_in_no_shared_file_at_the_source(self):
        a = self.vm("a", ram="anon")
        self.vm("b", incoming=True)
        self.assert_refused(a, MISFIT, "not in a shared file", "share=on")

    def test_a_memfd_of_QEMUs_own_unless_this_QEMU_keeps_it_out_of_its_stream(self):
        a = self.vm("a", ram="memfd")
        self.vm("b", incoming=True, ram="memfd")
        if self.stage.qemus["a"].name == INSTALLED:
            self.assertEqual(self.stage.relocate().code, OK)
        else:
            self.assert_refused(a, MISFIT, "memory-backend-memfd", "memory-backend-file")

    def test_a_private_mapping_of_a_file_at_the_source(self):
        a = self.vm("a", register=False, edits=[("share=on", "share=off")])
        support.await_that("it has registered its problem",
                           lambda: support.ctl(self.stage.hosts["a"], "list").answer["vms"])
        self.vm("b", incoming=True)
        self.assert_refused(a, MISFIT, "share=on")

    def test_an_unhooked_qemu_at_the_destination(self):
        a = self.vm("a")
        self.vm("b", incoming=True, hook="")
        self.assert_refused(a, MISFIT, VM, "with the hook")

    def test_an_unhooked_qemu_at_the_source(self):
        a = self.vm("a", hook="")
        self.vm("b", incoming=True)
        self.assert_refused(a, NO_SUCH_VM, VM, "libpostcopy-preload.so")

    def test_a_destination_that_runs_already(self):
        a = self.vm("a")
        self.vm("b")
        self.assert_refused(a, MISFIT, "-S -incoming defer")

    def test_a_destination_without_S(self):
        a = self.vm("a")
        self.vm("b", extra=("-incoming", "defer"))
        self.assert_refused(a, MISFIT, "without -S")

    def test_a_destination_that_another_relocation_has_taken(self):
        a = self.vm("a")
        other = self.vm("a", name="web2", tap="tap1")
        self.vm("b", incoming=True)
        self.assertEqual(self.stage.relocate("--prepare-only").code, OK)
        self.assert_refused(other, MISFIT, "another relocation", options=("--as", VM), vm="web2")
        self.assertEqual(self.stage.hosts["a"].ctl("cancel", VM).returncode, OK)
        self.assertEqual(a.qmp.command("query-status")["status"], "running")

    def test_a_source_that_is_being_relocated(self):
        a = self.vm("a")
        self.vm("b", incoming=True)
        self.assertEqual(self.stage.relocate("--prepare-only").code, OK)
        ended = self.stage.relocate()
        self.assertEqual(ended.code, MISFIT, ended.message)
        self.assertIn("another relocation", ended.message)
        self.assertEqual(self.stage.hosts["a"].ctl("cancel", VM).returncode, OK)
        self.assertEqual(a.qmp.command("query-status")["status"], "running")

    def test_vhost_user_in_use(self):
        if shutil.which("qemu-storage-daemon") is None:
            self.skipTest("missing: qemu-storage-daemon")
        socket = self.stage.folder / "vhost.sock"
        self._vms.enter_context(storage_daemon(self.stage.folder / "disk.raw", socket))
        a = self.vm("a", extra=("-chardev", f"socket,id=vu,path={socket}",
                                "-device", "vhost-user-blk-pci,chardev=vu,id=disk"))
        self.vm("b", incoming=True)
        self.assert_refused(a, MISFIT, "disk", "vhost-user", "another process")

    def foreign_memory(self, host):
        """A file with content that belongs to others, on tmpfs as guest RAM is, and the words that give
        it to a QEMU as memory backend "shm"."""
        path = pathlib.Path(f"/dev/shm/neighbour-{os.getpid()}-{host}")
        path.write_bytes(_NEIGHBOUR)
        self.addCleanup(path.unlink)
        return path, ("-object", f"memory-backend-file,id=shm,size={len(_NEIGHBOUR)},"
                                 f"mem-path={path},share=on")

    def test_memory_that_ivshmem_shares_with_a_neighbour(self):
        _, of_a = self.foreign_memory("a")
        neighbour, of_b = self.foreign_memory("b")
        device = ("-device", "ivshmem-plain,memdev=shm,master=on")
        a = self.vm("a", extra=(*of_a, *device))
        self.vm("b", incoming=True, extra=(*of_b, *device))
        self.assert_refused(a, MISFIT, "memory backend shm", "ivshmem-plain",
                            options=("--prepare-only",))
        self.assertEqual(neighbour.read_bytes(), _NEIGHBOUR, "the neighbour's memory has changed")

    def test_memory_that_only_the_destination_shares_with_a_neighbour(self):
        neighbour, of_b = self.foreign_memory("b")
        a = self.vm("a")
        self.vm("b", incoming=True, extra=(*of_b, "-device", "ivshmem-plain,memdev=shm,master=on"))
        self.assert_refused(a, MISFIT, "destination", "memory backend shm",
                            options=("--prepare-only",))
        self.assertEqual(neighbour.read_bytes(), _NEIGHBOUR, "the neighbour's memory has changed")

    def test_a_memory_backend_that_nothing_uses_is_left_alone(self):
        _, of_a = self.foreign_memory("a")
        unused, of_b = self.foreign_memory("b")
        self.vm("a", extra=of_a)
        self.vm("b", incoming=True, extra=of_b)
        ended = self.stage.relocate("--prepare-only")
        self.assertEqual(ended.code, OK, ended.message)
        self.assertEqual(unused.read_bytes(), _NEIGHBOUR, "it has been emptied")
        self.assertEqual(self.stage.hosts["a"].ctl("cancel", VM).returncode, OK)

    def both(self, *extra, at_b=None, edits_b=(), **changes):
        """A VM on a and one that waits on b, which differs as told."""
        a = self.vm("a", extra=extra, **changes)
        self.vm("b", incoming=True, extra=extra if at_b is None else at_b, edits=edits_b, **changes)
        return a

    def test_disks_that_have_changed_places(self):
        def disks(first, second):
            return (*_null_disk("d0"), *_null_disk("d1"),
                    "-device", f"virtio-blk-pci,drive=d0,id=disk0,addr={first}",
                    "-device", f"virtio-blk-pci,drive=d1,id=disk1,addr={second}")
        a = self.both(*disks(5, 6), at_b=disks(6, 5))
        self.assert_refused(a, MISFIT, "device disk0: addr is 05.0 at the source and 06.0",
                            options=("--prepare-only",))

    def test_images_that_have_changed_places(self):
        def disks(*sizes):
            return [argument for i, size in enumerate(sizes) for argument in (
                "-drive", f"if=none,id=d{i},driver=null-co,read-zeroes=on,size={size}",
                "-device", f"virtio-blk-pci,drive=d{i},id=disk{i}")]
        a = self.both(*disks("64M", "96M"), at_b=disks("96M", "64M"))
        self.assert_refused(a, MISFIT, "disk disk0: size is 67108864 bytes at the source and 100663296 bytes",
                            "disk disk1: size is", options=("--prepare-only",))

    def test_a_cpu_that_lacks_features(self):
        a = self.vm("a", cpu="max")
        self.vm("b", incoming=True, cpu="qemu64")
        self.assert_refused(a, MISFIT, "CPU model is max-x86_64-cpu at the source and qemu64",
                            "CPU features CPUID", options=("--prepare-only",))

    def test_another_topology(self):
        a = self.vm("a", extra=("-smp", "2,sockets=2,cores=1"))
        self.vm("b", incoming=True, extra=("-smp", "2,sockets=1,cores=2"))
        self.assert_refused(a, MISFIT, "machine smp.sockets is 2 at the source and 1",
                            options=("--prepare-only",))

    def test_another_rom(self):
        # Debian's own ROMs are a package of their own, which need not be installed.
        rom = self.stage.folder / "a.rom"
        rom.write_bytes(b"\x55\xaa\x80" + bytes((64 << 10) - 3))
        a = self.both("-device", "virtio-net-pci,id=n1,romfile=",
                      at_b=("-device", f"virtio-net-pci,id=n1,romfile={rom}"))
        self.assert_refused(a, MISFIT, "virtio-net-pci.rom", "at the destination only",
                            options=("--prepare-only",))

    def test_queues_and_vectors_that_differ(self):
        a = self.both("-device", "virtio-serial-pci,id=s0,vectors=4",
                      at_b=("-device", "virtio-serial-pci,id=s0,vectors=2"))
        self.assert_refused(a, MISFIT, "device s0: vectors is 4 at the source and 2",
                            options=("--prepare-only",))

    def test_a_block_job(self):
        a = self.both(*_null_disk("d0"), "-device", "virtio-blk-pci,drive=d0,id=disk0")
        a.qmp.command("blockdev-add", **{"driver": "null-co", "node-name": "target",
                                       "size": 1 << 30, "read-zeroes": True})
        a.qmp.command("blockdev-mirror", **{"job-id": "mirror0", "device": "d0", "target": "target",
                                          "sync": "full", "speed": 1 << 20})
        self.assert_refused(a, MISFIT, "job mirror0 (mirror, running)", "block-job-cancel",
                            options=("--prepare-only",))

    def test_an_export_of_a_disk(self):
        a = self.both(*_null_disk("d0"), "-device", "virtio-blk-pci,drive=d0,id=disk0")
        socket = self.stage.folder / "nbd.sock"
        a.qmp.command("nbd-server-start", **{"addr": {"type": "unix", "data": {"path": str(socket)}}})
        self.addCleanup(lambda: socket.unlink(missing_ok=True))
        node = a.qmp.command("query-named-block-nodes", **{"flat": True})[0]["node-name"]
        a.qmp.command("block-export-add", **{"type": "nbd", "id": "e0", "node-name": node})
        self.assert_refused(a, MISFIT, "block export e0 (nbd", options=("--prepare-only",))

    def test_a_dirty_bitmap_that_would_be_lost(self):
        a = self.both(*_null_disk("d0"), "-device", "virtio-blk-pci,drive=d0,id=disk0")
        a.qmp.command("block-dirty-bitmap-add", **{"node": "d0", "name": "b0"})
        self.assert_refused(a, MISFIT, "dirty bitmap b0", "dirty-bitmaps",
                            options=("--prepare-only",))

    def test_a_temporary_overlay(self):
        disk = self.stage.folder / "base.raw"
        disk.write_bytes(bytes(1 << 20))
        self.addCleanup(disk.unlink)
        words = ("-drive", f"if=none,id=d0,file={disk},format=raw,snapshot=on,file.locking=off",
                 "-device", "virtio-blk-pci,drive=d0,id=disk0")
        self.assert_refused(self.both(*words), MISFIT, "temporary overlay",
                            options=("--prepare-only",))

    def test_memory_that_is_locked_at_the_destination(self):
        a = self.vm("a")
        self.vm("b", incoming=True, extra=("-overcommit", "mem-lock=on"))
        self.assert_refused(a, MISFIT, "memory is locked", "mem-lock",
                            options=("--prepare-only",))

    def test_what_is_hot_plugged_after_prepare_is_found_before_the_stop(self):
        a = self.both()
        self.assertEqual(self.stage.relocate("--prepare-only").code, OK)
        a.qmp.command("device_add", **{"driver": "virtio-rng-pci", "id": "late",
                                     "rng": self.rng(a), "addr": "7"})
        a.qmp.poll_events()
        done = self.stage.hosts["a"].ctl("switch", VM)
        print(done.stderr)
        self.assertIn("since it was prepared, device late", done.stderr)
        self.assertNotIn("STOP", [event.name for event in a.qmp.poll_events()])
        self.assertEqual(a.qmp.command("query-status")["status"], "running")

    def rng(self, vm):
        vm.qmp.command("object-add", **{"qom-type": "rng-random", "id": "r",
                                      "filename": "/dev/urandom"})
        return "r"

    def test_check_tells_everything_at_once_and_changes_nothing(self):
        self.stage.renew_daemons()  # which know of no relocation
        disk = (*_null_disk("d0"), "-device", "virtio-blk-pci,drive=d0,id=disk0,addr=5")
        a = self.both(*disk, at_b=(*disk[:-1], "virtio-blk-pci,drive=d0,id=disk0,addr=6"))
        a.qmp.command("block-dirty-bitmap-add", **{"node": "d0", "name": "b0"})
        check = ("check", VM, "--to", self.stage.hosts["b"].address)
        before = a.qmp.command("query-migrate-capabilities")
        began = time.monotonic()
        found = support.ctl(self.stage.hosts["a"], *check)
        print(f"check: {1000 * (time.monotonic() - began):.0f} ms, {found.answer}")
        self.assertEqual(found.code, MISFIT)
        self.assertEqual([each["side"] for each in found.answer["findings"]],
                         ["source", "destination"])
        self.assertIn("dirty bitmap b0", found.answer["findings"][0]["message"])
        self.assertIn("addr is 05.0", found.answer["findings"][1]["message"])
        self.assertEqual(a.qmp.command("query-migrate-capabilities"), before)
        self.assertEqual(support.ctl(self.stage.hosts["a"], "stats", VM).code, NO_SUCH_VM)
        for host in self.stage.hosts.values():
            self.assertEqual(list(host.state_dir.glob("*.json")), [])

    def test_check_of_a_vm_that_fits(self):
        a = self.both()
        check = ("check", VM, "--to", self.stage.hosts["b"].address)
        found = support.ctl(self.stage.hosts["a"], *check)
        self.assertEqual((found.code, found.answer["findings"]), (OK, []))
        self.assertEqual(self.stage.relocate("--prepare-only").code, OK)
        found = support.ctl(self.stage.hosts["a"], *check)
        self.assertEqual(found.code, MISFIT)
        self.assertIn("another relocation", found.answer["findings"][0]["message"])
        self.assertEqual(self.stage.hosts["a"].ctl("cancel", VM).returncode, OK)
        self.assertEqual(a.qmp.command("query-status")["status"], "running")

    def test_a_peer_that_nobody_can_reach(self):
        a = self.vm("a")
        self.vm("b", incoming=True)
        self.stage.network.cut("b")
        self.addCleanup(self.stage.network.restore, "b")
        self.assert_refused(a, UNREACHABLE, self.stage.hosts["b"].address)

    def test_a_peer_without_a_daemon(self):
        a = self.vm("a")
        self.stage.hosts["b"].stop()
        self.addCleanup(self.stage.hosts["b"].start)
        self.assert_refused(a, UNREACHABLE, self.stage.hosts["b"].address)

    def test_usage(self):
        for words in ([], ["relocate"], ["relocate", VM], ["relocate", VM, "--to"], ["fly", VM],
                      ["list", "--colour"], ["relocate", VM, "--to", "b", "--prepare-only",
                                             "--no-wait"]):
            with self.subTest(words=words):
                done = self.stage.hosts["a"].ctl(*words)
                self.assertEqual(done.returncode, USAGE, done.stderr)
                self.assertIn("--help", done.stderr)


def _null_disk(name):
    """The words for a drive of 1 GiB without an image."""
    return ("-drive", f"if=none,id={name},file=null-co://,format=raw,file.size=1G,"
                      "file.read-zeroes=on")


@contextlib.contextmanager
def storage_daemon(disk, socket):
    """A real vhost-user back end: qemu-storage-daemon with a disk of 16 MiB."""
    with open(disk, "wb") as file:
        file.truncate(16 << 20)
    process = subprocess.Popen(
        ["qemu-storage-daemon", "--blockdev", f"driver=file,node-name=disk,filename={disk}",
         "--export", f"type=vhost-user-blk,id=export,addr.type=unix,addr.path={socket},"
                     "node-name=disk,writable=on"])
    try:
        support.await_that("the storage daemon listens", socket.exists)
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    support.main()
