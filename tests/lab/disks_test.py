"""What the host finds in the image of a guest's disk: nothing where all is as it was written, and every kind
of damage otherwise."""

import hashlib
import pathlib
import shutil
import struct
import tempfile
import unittest

from . import disks
from .commands import run
from .guest import Parameters

_GOLDEN, _WORD = 0x9e3779b97f4a7c15, (1 << 64) - 1
_GUEST = Parameters(disk_mib=1, seed=5)
_GENERATION = 3
_FILE = b"what the guest wrote into a file " * 200


def mixed(x):
    """lab_mix64 of guest/content.h."""
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9 & _WORD
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb & _WORD
    return x ^ (x >> 31)


def checked_block(block, generation):
    """A block of the checker's file: lab_page_word of guest/content.h, and what follows."""
    first = mixed((mixed((_GUEST.seed + _GOLDEN * (generation + 1)) & _WORD) + block) & _WORD)
    return struct.pack("<512Q", *((first + i * _GOLDEN) & _WORD for i in range(512)))


class Faults(unittest.TestCase):
    """Each test takes a copy of one image and damages it."""

    @classmethod
    def setUpClass(cls):
        if shutil.which("debugfs") is None or shutil.which("gcc") is None:
            raise unittest.SkipTest("missing: debugfs (e2fsprogs) or gcc")
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.whole = cls.folder / "whole.img"
        disks.make(cls.whole, disks.Disk())
        files = {"check": b"".join(checked_block(block, _GENERATION) for block in range(256)),
                 "d0/0": _FILE, "d0/1": b"one", "d0/2": b"two"}
        files["d0/sums"] = "".join(f"{hashlib.sha256(files[f'd0/{name}']).hexdigest()}  {name}\n"
                                   for name in "012").encode()
        commands = "mkdir d0\n"
        for name, content in files.items():
            (cls.folder / name.replace("/", "-")).write_bytes(content)
            commands += f"write {cls.folder / name.replace('/', '-')} {name}\n"
        run(["debugfs", "-w", "-f", "-", str(cls.whole)], stdin=commands)

    def faults(self, damage=lambda content: content, generation=_GENERATION):
        image = self.folder / "damaged.img"
        image.write_bytes(damage(self.whole.read_bytes()))
        return disks.faults(image, disks.Disk(), 0, _GUEST, generation)

    @staticmethod
    def flipped(content, at):
        return content[:at] + bytes([content[at] ^ 1]) + content[at + 1:]

    def test_none_where_all_is_as_it_was_written(self):
        self.assertEqual(self.faults(), [])

    def test_a_block_of_the_checker_that_has_one_wrong_bit(self):
        at = self.whole.read_bytes().index(checked_block(77, _GENERATION))
        found = self.faults(lambda content: self.flipped(content, at + 4095))
        self.assertEqual(len(found), 1)
        self.assertIn("diskcheck", found[0])

    def test_a_block_of_an_earlier_generation(self):
        now, before = checked_block(200, _GENERATION), checked_block(200, _GENERATION - 1)
        self.assertEqual(len(self.faults(lambda content: content.replace(now, before))), 1)

    def test_all_of_another_generation(self):
        self.assertEqual(len(self.faults(generation=_GENERATION + 1)), 1)

    def test_a_file_with_one_wrong_bit(self):
        at = self.whole.read_bytes().index(_FILE[:64])
        self.assertEqual(self.faults(lambda content: self.flipped(content, at + 100)),
                         ["disk 0 (virtio-blk raw none threads): d0/0 is not what was written"])

    def test_a_file_system_that_is_not_consistent(self):
        run(["debugfs", "-w", "-R", "clri d0/1", str(shutil.copy(self.whole, self.folder / "clri.img"))])
        damaged = (self.folder / "clri.img").read_bytes()
        self.assertIn("e2fsck", " ".join(self.faults(lambda _: damaged)))

    def test_a_guest_that_ended_without_notice_is_held_to_its_journal_only(self):
        self.assertEqual(self.faults(generation=None), [])


class Words(unittest.TestCase):
    def test_names_in_the_guest_follow_the_bus(self):
        self.assertEqual(disks.names_in_guest([disks.Disk(), disks.Disk("scsi"), disks.Disk()]), "vda,sda,vdb")


if __name__ == "__main__":
    unittest.main()
