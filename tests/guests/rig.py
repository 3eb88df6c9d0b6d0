"""A guest with disks and devices on a Stage: started, relocated, looked at from all sides.

What happens to it is the happenings' business (happenings.py, run_states.py). Everything that is not as
it should be is a test's failure, with a sentence.
"""

import contextlib
import os
import shutil

import support
from lab import checker, disks, guest, qemu, saved_guest, shell
from lab.commands import LabError, await_that
from lab.devices import DEVICES, MACHINES, UEFI_VARIABLE, Assembly, Tpm
from lab.postcopyctl import OK, ctl
from lab.run_watch import QemuWatch, overlaps
from lab.two_hosts import VM

MEMORY_MIB = 256
LINK_MBIT = 400  # so that the guest reads and writes its disks while memory arrives
_KERNEL_WORDS = "no_timer_check"  # a busy host lets that check fail, and such a guest boots no further
_GUEST = "ready.guest"  # the file that save() makes


class Rig:
    """A context manager for one Cell on a `stage`; `test` is told what is wrong. VMs and all that belongs to
    them go when it goes."""

    def __init__(self, test, stage, cell, saved=None):
        """`saved` is another Rig of the cell, on this stage, on which save() was called."""
        self.test, self.stage, self.cell = test, stage, cell
        self.machine = MACHINES[cell.machine]
        self.devices = [DEVICES[name] for name in cell.devices]
        self.folder = stage.folder / f"c{len(os.listdir(stage.folder))}"
        self.images = [self.folder / f"disk{number}.img" for number in range(len(cell.disks))]
        self.changes = {}   # fields of qemu.Config that a happening wants
        self.user = ""      # who may open the images; "": root
        self.hops = 0
        self._shown = None
        self._saved = saved.folder if saved else self.folder
        self._started = 0
        self._stack = contextlib.ExitStack()
        self._runs = {}
        self.parameters = guest.Parameters(
            files_mib=0, check_mib=8, check_pause_us=2000, check_order="random", devices=1,
            disks=disks.names_in_guest(cell.disks), kernel_words=_KERNEL_WORDS)

    @property
    def network(self):
        return self.stage.network

    @property
    def address(self):
        return self.parameters.address

    def ask(self, script, **options):
        return shell.ask(self.network, self.address, script, **options)

    def tell(self, script):
        shell.tell(self.network, self.address, script)

    def start(self, host, incoming=False, extra=(), register=True, **changes):
        """A VM of the cell on `host`; `extra` are more of QEMU's arguments."""
        self._started += 1
        folder = self.folder / f"{self._started}"
        folder.mkdir(parents=True)
        folder.chmod(0o777)
        if any(device.tpm for device in self.devices):
            self._stack.enter_context(Tpm(folder))
        assembly = Assembly(self.machine, self.folder, folder)
        for number, (disk, path) in enumerate(zip(self.cell.disks, self.images)):
            assembly.add(*disk.words(number, path, assembly.slot))
        for device in self.devices:
            device.add(assembly)
        for device in self.devices:
            changes = dict(device.config) | changes
        fields = {"machine": assembly.type, "first": tuple(assembly.first), "nic": assembly.nic,
                  "guest": self.parameters} | self.changes | changes
        fields["extra"] = (*assembly.words, *self.changes.get("extra", ()), *extra)
        if fields.get("queues", 1) > 1:
            self._add_taps(fields["tap"])
        vm = self._stack.enter_context(self.stage.vm(host, incoming=incoming, register=register, **fields))
        vm.port_log = folder / "port.log"
        return vm

    def boot(self, host="a", **changes):
        """The cell's guest on `host`, ready, with new disks."""
        self.make_images()
        vm = self.start(host, **changes)
        vm.wait_ready(timeout_s=180)
        return vm

    def save(self):
        """Boots the cell's guest once, for go_on_at()."""
        self.make_images()
        vm = self.start("a", register=False, hook="")
        vm.wait_ready(timeout_s=180)
        saved_guest.save(vm, self._saved / _GUEST)
        vm.__exit__()
        for path in self.images:
            shutil.copyfile(path, self._saved / f"{path.name}.saved")

    def go_on_at(self, host):
        """The saved guest on `host`, with its disks as they were then."""
        for path in self.images:
            shutil.copyfile(self._saved / f"{path.name}.saved", path)
        vm = self.start(host, extra=saved_guest.arguments(self._saved / _GUEST))
        saved_guest.go_on(vm)
        return vm

    def make_images(self):
        for path, disk in zip(self.images, self.cell.disks):
            disks.make(path, disk)
            if self.user:
                run_as = support.user_ids(self.user)
                os.chown(path, *run_as)

    def _add_taps(self, tap):
        for host in self.stage.hosts:
            with contextlib.suppress(LabError):  # an earlier cell has added it
                self.network.add_tap(host, tap, multi_queue=True)

    def hop(self, source, to, meanwhile=None, waiting=(), **changes):
        """Relocates the guest from the VM `source` to host `to`; `meanwhile` is called with the new VM while
        memory arrives. The new VM; the other has ended."""
        destination = self.start(to, incoming=True, extra=waiting, **changes)
        watches = [QemuWatch(source), QemuWatch(destination)]
        monitor = destination.qmp  # connected while it is sure to answer
        if not self.network.ipv6:
            for host in self.stage.hosts:
                self.network.shape(host, LINK_MBIT)
        relocating = self.stage.relocating(source=source.host, destination=to)
        if meanwhile:
            await_that("the guest runs at the destination", lambda: monitor.command(
                "query-status")["status"] == "running", timeout_s=60, every_s=0.01)
            meanwhile(destination)
        ended = relocating.end(timeout_s=180)
        self.test.assertEqual(ended.code, OK, f"{ended.message}; {source.error_log.read_text()[-500:]}; "
                                              f"{destination.error_log.read_text()[-500:]}")
        source.wait_exit(30)
        self.test.assertEqual(overlaps(*(watch.finish() for watch in watches)), [])
        source.__exit__()
        self.hops += 1
        print(f"    {source.host} -> {to}: downtime {ended.answer['downtime_ms']:.1f} ms, "
              f"{ended.answer['faults']} faults", flush=True)
        return destination

    def check(self, vm, booted=False):
        """The guest runs in `vm`, its memory and disks are as it wrote them, its devices work. If it has
        `booted` there, what its console said before does not count: a kernel that goes down ends its I/O."""
        self.test.assertEqual(vm.qmp.command("query-status")["status"], "running")
        status = checker.wait_full_passes(self.network, self.address, 1, timeout_s=180)
        self.test.assertEqual(status.errors, 0, f"memory, first at {status.first_error_address}")
        for number in range(len(self.cell.disks)):
            seen = disks.await_passes(self.network, self.address, number)
            self.test.assertEqual(seen["errors"], 0, f"disk {number}: {seen}")
        console = vm.console().rpartition("GUEST READY")[2] if booted else vm.console()
        for word in ("ENDED", "FAILED", "BUG:", "Oops", "rejecting I/O", "I/O error"):
            self.test.assertNotIn(word, console)
        self.check_devices(vm)

    def check_devices(self, vm):
        shown = {name: self.ask(DEVICES[name].show).strip()
                 for name in self.cell.devices if DEVICES[name].show}
        if self.machine.ovmf:
            shown["UEFI"] = self.ask(UEFI_VARIABLE).strip()
        for name, text in shown.items():
            self.test.assertTrue(text, f"{name} shows nothing")
        if self._shown is None:
            self._shown = shown
        self.test.assertEqual(shown, self._shown)
        if "serial port" in self.cell.devices:
            self.test.assertIn("port", vm.port_log.read_text())

    def finish(self, vm):
        """Ends the guest in order, and looks at its disks from outside."""
        generations = disks.stop_in_guest(self.network, self.address, self.cell.disks)
        vm.quit()
        vm.__exit__()
        self.check_images(generations)

    def check_images(self, generations=None):
        """The disks of a guest that does not run any more; without generations it ended without notice."""
        for number, (disk, path) in enumerate(zip(self.cell.disks, self.images)):
            generation = generations[number] if generations else None
            self.test.assertEqual(disks.faults(path, disk, number, self.parameters, generation), [])

    def stats(self, host):
        return ctl(self.stage.hosts[host], "stats", VM).answer

    def __enter__(self):
        self.folder.mkdir()
        self.folder.chmod(0o755)
        return self

    def __exit__(self, *exception):
        for host in self.stage.hosts:
            self.network.unshape(host)
        return self._stack.__exit__(*exception)
