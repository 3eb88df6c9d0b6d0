"""Disks of a guest: images that the QEMUs of both hosts open, and what is in them at the end.

Each image has an ext4. The guest writes and verifies it all the time (guest/disk, guest/diskcheck.c); when
it has stopped the host looks at it by its own means: fsck, the checker's file word by word, the hashes of
the other files. Not responsible for where the image is plugged in (devices.py).
"""

import dataclasses
import hashlib
import json
import pathlib
import shutil
import tempfile

from . import guest, shell
from .commands import LabError, await_that, run

_IMAGE_MIB = 64
_FOLDERS = 5  # guest/disk


@dataclasses.dataclass(frozen=True)
class Disk:
    """One disk, as its owner configures it."""

    bus: str = "blk"         # or "scsi"
    format: str = "raw"      # or "qcow2"
    cache: str = "none"      # or "writeback"
    aio: str = "threads"     # or "native", "io_uring"
    iothread: bool = False
    iops: int = 0            # it is throttled to so many; 0: not
    drive: bool = False      # described by -drive rather than -blockdev

    def words(self, number, path, slot):
        """QEMU's words for it. `slot()` is the PCI slot of the next device: ",bus=…", or "" for any."""
        direct = "on" if self.cache == "none" else "off"
        made = ["-object", f"iothread,id=io{number}"] if self.iothread else []
        if self.drive:
            throttle = f",throttling.iops-total={self.iops}" if self.iops else ""
            made += ["-drive", f"file={path},format={self.format},if=none,id=node{number},cache={self.cache},"
                               f"aio={self.aio}{throttle}"]
        else:
            made += ["-blockdev", f"driver=file,filename={path},node-name=file{number},aio={self.aio},"
                                  f"cache.direct={direct}"]
            name = f"format{number}" if self.iops else f"node{number}"
            made += ["-blockdev", f"driver={self.format},file=file{number},node-name={name},"
                                  f"cache.direct={direct}"]
            if self.iops:
                made += ["-object", f"throttle-group,id=limit{number},x-iops-total={self.iops}",
                         "-blockdev", f"driver=throttle,throttle-group=limit{number},file={name},"
                                      f"node-name=node{number}"]
        thread = f",iothread=io{number}" if self.iothread else ""
        if self.bus == "blk":
            return [*made, "-device",
                    f"virtio-blk-pci,id=disk{number},drive=node{number}{thread}{slot()}"]
        return [*made, "-device", f"virtio-scsi-pci,id=scsi{number}{thread}{slot()}",
                "-device", f"scsi-hd,id=disk{number},bus=scsi{number}.0,drive=node{number}"]

    def __str__(self):
        words = [f"virtio-{self.bus}", self.format, self.cache, self.aio]
        words += ["iothread"] if self.iothread else []
        words += [f"{self.iops} IOPS"] if self.iops else []
        return " ".join(words + (["-drive"] if self.drive else []))


def names_in_guest(disks):
    """What Linux calls them, with commas: Parameters.disks."""
    letters = {"blk": iter("abcdef"), "scsi": iter("abcdef")}
    return ",".join(("vd" if disk.bus == "blk" else "sd") + next(letters[disk.bus]) for disk in disks)


def make(path, disk):
    """A new image with an empty ext4 at `path`."""
    raw = pathlib.Path(path).with_suffix(".new")
    with open(raw, "wb") as file:
        file.truncate(_IMAGE_MIB << 20)
    run(["mkfs.ext4", "-q", "-F", "-O", "^metadata_csum_seed", str(raw)], what=f"make a file system in {path}")
    if disk.format == "raw":
        raw.rename(path)
        return
    run(["qemu-img", "convert", "-f", "raw", "-O", disk.format, str(raw), str(path)],
        what=f"make the image {path}")
    raw.unlink()


def status(network, address, number):
    """What the guest's checker of that disk has published last, a dict (guest/diskcheck.c). LabError."""
    fetch = ["timeout", 5, "busybox", "wget", "-q", "-O", "-", f"http://{address}/diskcheck{number}.json"]
    return json.loads(run(network.exec_argv("client", fetch), what=f"ask the checker of disk {number}",
                          timeout_s=10))


def await_passes(network, address, number, count=1, timeout_s=120):
    """Returns when `count` passes over the disk that began after this call have ended, or one with errors;
    the status then. LabError after `timeout_s`."""
    wanted = None

    def reached():
        nonlocal wanted
        try:
            now = status(network, address, number)
        except LabError:
            return None
        wanted = now["passes"] + count + 1 if wanted is None else wanted
        return now if now["errors"] or now["passes"] >= wanted else None
    return await_that(f"the guest has verified disk {number}", reached, timeout_s, every_s=0.1)


def stop_in_guest(network, address, disks):
    """Has the guest end what it does with its disks and unmount them. The generation of each checker's
    file afterwards. LabError: it did not; its console says why."""
    shell.ask(network, address, "touch /run/stop")
    for number in range(len(disks)):
        await_that(f"the guest has unmounted disk {number}", lambda number=number: "done" in shell.ask(
            network, address, f"cat /run/disk-done{number}"), timeout_s=120, every_s=0.2)
    return [status(network, address, number)["passes"] for number in range(len(disks))]


def faults(path, disk, number, parameters, generation=None):
    """What is wrong in the image of disk `number` of a guest with these Parameters that does not run any
    more: sentences, none if all is as it was written. Without `generation` the guest ended without notice:
    then the file system's journal is replayed, and of the checker's file nothing is said."""
    found = []
    with tempfile.TemporaryDirectory(prefix="postcopy-lab-") as scratch:
        raw = pathlib.Path(scratch) / "raw"
        if disk.format == "raw":
            shutil.copyfile(path, raw)
        else:
            found += _failure(["qemu-img", "check", "-f", disk.format, str(path)])
            run(["qemu-img", "convert", "-f", disk.format, "-O", "raw", str(path), str(raw)],
                what=f"convert {path}")
        if generation is None:
            run(["sh", "-c", f"e2fsck -p {raw}; test $? -le 1"], what=f"replay the journal in {path}")
        found += _failure(["e2fsck", "-f", "-n", str(raw)])
        tree = pathlib.Path(scratch) / "tree"
        tree.mkdir()
        run(["debugfs", "-R", f"rdump / {tree}", str(raw)], what=f"read the files of {path}")
        if generation is not None:
            program = pathlib.Path(scratch) / "diskcheck"
            guest.compiled("diskcheck", scratch)
            found += _failure([str(program), "verify", str(tree / "check"), str(parameters.disk_mib),
                               str(parameters.seed + number), str(generation)])
            found += _wrong_files(tree)
    return [f"disk {number} ({disk}): {each}" for each in found]


def _failure(argv):
    try:
        run(argv)
        return []
    except LabError as error:
        return [str(error)]


def _wrong_files(tree):
    """Files whose content is not what its hash says; and that there are too few."""
    found, seen = [], 0
    for sums in tree.glob("d*/sums"):
        for line in sums.read_text().splitlines():
            wanted, name = line.split()
            seen += 1
            path = sums.parent / name
            if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != wanted:
                found.append(f"{sums.parent.name}/{name} is not what was written")
    return found + ([] if seen >= 3 else [f"only {seen} files were written"])
