"""Machines and devices by name, as real guests have them: what QEMU is told, and what shows in the guest
that a device still does what it is for.

A Machine may put every device behind a root port of its own. Disks are in disks.py. Not responsible for
starting QEMU (qemu.py), nor for what happens to the guest.
"""

import dataclasses
import pathlib
import shutil
import subprocess

from . import reaper
from .commands import LabError, await_that

_PORTS = 14
_FIRMWARE = pathlib.Path("/usr/share/OVMF")
_PROGRAM = shutil.which("swtpm") or "swtpm"


@dataclasses.dataclass(frozen=True)
class Machine:
    type: str
    ports: bool = False  # each device is behind a pcie-root-port
    ovmf: bool = False   # boots by UEFI, with two flash chips


MACHINES = {
    "pc": Machine("pc-i440fx-7.2"),
    "q35": Machine("pc-q35-7.2"),
    "q35, root ports": Machine("pc-q35-7.2", ports=True),
    "q35, root ports, OVMF": Machine("pc-q35-7.2", ports=True, ovmf=True),
}


class Assembly:
    """What a VM's QEMU is told on one host. The same Machine and the same devices in the same order make the
    same machine on every host."""

    def __init__(self, machine, shared, folder):
        """`shared` is a folder that both hosts see, `folder` one of this VM's own."""
        self.machine, self.shared, self.folder = machine, pathlib.Path(shared), pathlib.Path(folder)
        self._next_port = 0
        self.first, self.words = [], []
        if machine.ports:
            for port in range(_PORTS):
                self.first += ["-device", f"pcie-root-port,id=port{port},chassis={port + 1},slot={port + 1}"]
        self.type = machine.type
        if machine.ovmf:
            self._add_firmware()
        self.nic = self.slot().lstrip(",")

    def slot(self):
        """Where the next device goes: ",bus=PORT", or "": anywhere."""
        if not self.machine.ports:
            return ""
        self._next_port += 1
        return f",bus=port{self._next_port - 1}"

    def add(self, *words):
        self.words += words

    def _add_firmware(self):
        variables = self.shared / "variables.fd"
        if not variables.exists():
            shutil.copyfile(_FIRMWARE / "OVMF_VARS_4M.fd", variables)
        self.first += ["-blockdev", f"driver=file,filename={_FIRMWARE}/OVMF_CODE_4M.fd,node-name=code,"
                                    "read-only=on",
                       "-blockdev", f"driver=file,filename={variables},node-name=variables"]
        self.type += ",pflash0=code,pflash1=variables"


class Tpm:
    """A context manager: an swtpm with a state of its own, as each host has one."""

    def __init__(self, folder):
        self._folder = pathlib.Path(folder) / "tpm"
        self.socket = self._folder / "control"
        self._process = None

    def __enter__(self):
        self._folder.mkdir(parents=True)
        self._process = subprocess.Popen(
            [_PROGRAM, "socket", "--tpm2", "--tpmstate", f"dir={self._folder}", "--terminate",
             "--ctrl", f"type=unixio,path={self.socket}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        reaper.note("process", self._process.pid)
        await_that("swtpm listens", lambda: self.socket.exists() or self._process.poll() is not None)
        if self._process.poll() is not None:
            raise LabError(f"start swtpm: it ended with status {self._process.returncode}")
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        reaper.forget("process", self._process.pid)


@dataclasses.dataclass(frozen=True)
class Device:
    """`add(assembly)` tells QEMU of it. `config` are fields of qemu.Config besides. `show` is a script for the
    guest's shell: what it prints must stay the same over a relocation, and not be empty; "": QEMU has the
    device, the guest's kernel no driver for it."""

    add: object
    config: tuple = ()
    show: str = ""
    tpm: bool = False


def _rng(a):
    a.add("-object", "rng-random,id=source0,filename=/dev/urandom",
          "-device", f"virtio-rng-pci,id=rng0,rng=source0{a.slot()}")


def _port(a):
    a.add("-device", f"virtio-serial-pci,id=serials0{a.slot()}",
          "-chardev", f"file,id=port0chr,path={a.folder}/port.log",
          "-device", "virtserialport,id=serialport0,chardev=port0chr,name=lab.port")


def _balloon(a):
    a.add("-device", f"virtio-balloon-pci,id=balloon0,free-page-reporting=on{a.slot()}")


def _vga(a):
    a.add("-device", "VGA,id=vga0")


def _gpu(a):
    a.add("-device", f"virtio-gpu-pci,id=gpu0{a.slot()}")


def _tablet(a):
    a.add("-device", f"qemu-xhci,id=usb0{a.slot()}", "-device", "usb-tablet,id=tablet0,bus=usb0.0")


def _tpm(a):
    a.add("-chardev", f"socket,id=tpmchr,path={a.folder}/tpm/control",
          "-tpmdev", "emulator,id=tpm0,chardev=tpmchr", "-device", "tpm-tis,id=tis0,tpmdev=tpm0")


def _panic(a):
    a.add("-device", "pvpanic,id=panic0", "-action", "panic=pause")


def _watchdog(a):
    a.add("-device", "ib700,id=watchdog0", "-action", "watchdog=pause")


def _nothing(_a):
    pass


DEVICES = {
    "rng": Device(_rng, show="head -c 16 /dev/hwrng | wc -c"),
    "serial port": Device(_port, show="for port in /dev/vport*; do echo port >$port && echo written; done"),
    "balloon": Device(_balloon, show="ls /sys/bus/virtio/drivers/virtio_balloon | grep virtio"),
    "VGA": Device(_vga, show="[ -e /tmp/drawn ] || { clear; echo lab-was-here; } >/dev/tty1;"
                             "touch /tmp/drawn; head -c 12 /dev/vcs1"),
    "virtio-gpu": Device(_gpu),
    "usb-tablet": Device(_tablet),
    "TPM": Device(_tpm, show="cat /sys/class/tpm/tpm0/pcr-sha256/0", tpm=True),
    "pvpanic": Device(_panic),
    "watchdog": Device(_watchdog),
    "net, 2 queues": Device(_nothing, config=(("queues", 2), ("smp", 2), ("tap", "taps")),
                            show="ls -d /sys/class/net/eth0/queues/* | wc -l"),
}
# What shows that the flash chips move: a UEFI variable that the guest writes once.
UEFI_VARIABLE = ("cd /sys/firmware/efi/efivars || exit; [ -e Lab-* ] || "
                 "printf '\\007\\000\\000\\000flash' >Lab-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f;"
                 "tail -c 5 Lab-*")
