"""A machine with Debian 12's own kernel, as a QEMU guest under TCG that runs programs of this machine:
for what this machine's kernel does not have.

Its root is an initramfs with the programs, the libraries they need, kernel modules and one script.
"""

import pathlib
import subprocess
import tempfile
import time

from . import packages
from .commands import LabError
from .guest import busybox, libraries, module_paths
from .initramfs import Archive

# Moves everything to a tmpfs: an initramfs is no mount that CRIU could find.
_TO_A_MOUNT = """#!/bin/busybox sh
/bin/busybox mkdir /new
/bin/busybox mount -t tmpfs -o size=90% tmpfs /new
for each in /*; do [ $each = /new ] || /bin/busybox cp -a $each /new/; done
exec /bin/busybox switch_root -c /dev/console /new /init.moved
"""

_INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /run
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm
for folder in /dev/shm /run; do mount -t tmpfs -o size=100% tmpfs $folder; done
exec </dev/null >/dev/console 2>&1
while read -r module; do insmod "/modules/$module" || echo "cannot load $module"; done </modules/order
ifconfig lo 127.0.0.1 up
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
sh /script
echo "NESTED STATUS $?"
poweroff -f
"""


def run(script, programs=(), files=None, modules=(), memory_mib=1024, timeout_s=300,
        root_is_mount=False):
    """Boots the machine, runs `script` (text, busybox's sh) as root and returns what it and the kernel
    have written. LabError, with that, unless its exit status is 0.

    `programs` are paths of programs and shared libraries here, which have the same paths there;
    `files` are further ones, {path there: path here}. `root_is_mount`: the root is a tmpfs with all
    that, not the initramfs itself.
    """
    cache = packages.cache_directory()
    with packages.CacheLock(cache):
        kernel_tree = packages.unpacked(packages.kernel_package(cache), cache)
    kernel = next((kernel_tree / "boot").glob("vmlinuz-*"))
    with tempfile.TemporaryDirectory(prefix="postcopy-nested-") as folder:
        initramfs = pathlib.Path(folder) / "initramfs.cpio"
        initramfs.write_bytes(_root(script, programs, files or {},
                                    module_paths(kernel_tree, modules), root_is_mount))
        console = pathlib.Path(folder) / "console"
        machine = subprocess.Popen(
            ["qemu-system-x86_64", "-machine", "pc", "-accel", "tcg,thread=multi",
             "-smp", "2", "-m", f"{memory_mib}M", "-nodefaults", "-no-user-config", "-no-reboot",
             "-vga", "none", "-display", "none", "-chardev", f"file,id=console,path={console}",
             "-serial", "chardev:console", "-kernel", str(kernel), "-initrd", str(initramfs),
             "-append", "console=ttyS0 quiet panic=-1 mitigations=off nokaslr"],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        return _wait(machine, console, timeout_s)


def _root(script, programs, files, modules, root_is_mount):
    archive = Archive()
    if root_is_mount:
        archive.add_file("/init", _TO_A_MOUNT.encode(), executable=True)
    archive.add_file("/init.moved" if root_is_mount else "/init", _INIT.encode(), executable=True)
    archive.add_file("/script", script.encode())
    archive.add_file("/bin/busybox", busybox().read_bytes(), executable=True)
    wanted = {str(path): pathlib.Path(path) for path in programs} | {
        there: pathlib.Path(here) for there, here in files.items()}
    for program in programs:
        wanted |= {str(library): library for library in libraries(program)}
    for there, here in sorted(wanted.items()):
        archive.add_file(there, here.read_bytes(), executable=True)
    for module in modules:
        archive.add_file(f"/modules/{module.name}", module.read_bytes())
    archive.add_file("/modules/order", "".join(f"{module.name}\n" for module in modules).encode())
    return archive.finish()


def _wait(machine, console, timeout_s):
    deadline = time.monotonic() + timeout_s
    try:
        while machine.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        ended = machine.poll() is not None
    finally:
        machine.kill()
        words = machine.communicate()[1]
    text = console.read_text(errors="replace") if console.exists() else ""
    if not ended:
        raise LabError(f"nested machine: no end after {timeout_s} s; its console:\n{text[-4000:]}")
    if "\nNESTED STATUS 0" not in text.replace("\r", ""):
        raise LabError(f"nested machine: {words.strip() or 'its script failed'}; its console:\n"
                       f"{text[-4000:]}")
    return text
