"""A guest that has booted once and goes on from there in as many QEMUs as are wanted.

Booting takes seconds, and where the guest makes gigabytes of files, minutes; loading what was saved
takes a fraction of that. Not responsible for what the guest does after it (its load, its relocation).
"""

import hashlib
import os
import pathlib

from .commands import LabError, await_that, run

_SAVE_S = 300  # at most


def save(vm, path):
    """Stops the guest of `vm`, which is ready, and saves it to the file `path`. LabError if QEMU fails.

    Stopped first: saved while it runs under TCG, now and then a page is missing that it wrote meanwhile
    (QEMU 7.2, one in about 30 images: the guest's kernel then finds its lists broken).
    """
    vm.qmp.command("stop")
    vm.qmp.command("migrate-set-parameters", **{"max-bandwidth": 10 << 30})
    vm.qmp.command("migrate", uri=f"exec:cat >{path}")
    _await_status(vm, "query-migrate", "completed", "failed", f"the guest is saved to {path}")


def arguments(path):
    """QEMU's arguments that make it load the guest in the file `path` instead of booting one."""
    return "-incoming", f"exec:cat {path}"


def go_on(vm):
    """Lets the guest run that `vm` was started with arguments() for, as soon as it is loaded. LabError if
    it cannot be.

    QEMU looks at each page that is to be zero, and so gives every hole of a RAM file a page. They are
    taken back: a guest that has booted has none there.
    """
    _await_status(vm, "query-status", "paused", "internal-error", "the saved guest is loaded")
    if vm.config.ram == "file":
        for path in vm.ram_paths:
            run(["fallocate", "--dig-holes", str(path)], what=f"dig holes into {path}",
                timeout_s=_SAVE_S)
    vm.qmp.command("cont")


def path_of(folder, config, image):
    """Where in `folder` the guest that a QEMU of this Config boots from `image` is kept: the same path for
    all that could load it."""
    kind = (config.qemu.program, config.machine, config.cpu, config.smp, config.memory_mib,
            config.guest.command_line(), str(image.kernel), str(image.initramfs))
    return pathlib.Path(folder) / f"{hashlib.sha256(repr(kind).encode()).hexdigest()[:16]}.guest"


def _await_status(vm, command, wanted, failed, what):
    def reached():
        status = vm.qmp.command(command).get("status")
        if status == failed:
            raise LabError(f"{what}: QEMU is in status {status!r}")
        return status == wanted
    await_that(what, reached, timeout_s=_SAVE_S)


def make(vm, path):
    """Boots the guest of `vm`, a qemu.Vm that was not started yet, and keeps it at `path`, whole or not
    at all; its QEMU ends. LabError."""
    fresh = pathlib.Path(path).with_suffix(".new")
    fresh.parent.mkdir(parents=True, exist_ok=True)
    with vm:
        vm.wait_ready(timeout_s=_SAVE_S)
        save(vm, fresh)
    os.rename(fresh, path)
