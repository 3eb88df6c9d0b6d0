"""Flips one byte in a running guest's RAM file, to show that the lab's checks notice it.

Finds the page by its content (content.py). Only for guests with RAM in a file. The guest is stopped
meanwhile, well under a second.
"""

import contextlib
import mmap

from .commands import LabError
from .content import file_content, is_checked_page

_PAGE = 4096


def flip_in_file(vm, seed, file, offset=1234):
    """Flips a byte of the guest's file number `file`, at `offset` < 4096. LabError if not found."""
    begin = file_content(seed, file, 16)
    _flip(vm, lambda page: page[:16] == begin, offset, f"file {file}")


def flip_in_checked_memory(vm, offset=1234):
    """Flips a byte, at `offset` < 4096, of some page of the checker's memory. LabError as above."""
    _flip(vm, is_checked_page, offset, "checked memory")


def _flip(vm, wanted, offset, what):
    vm.qmp.command("stop")
    try:
        with open(vm.ram_path, "r+b") as file, \
                contextlib.closing(mmap.mmap(file.fileno(), 0)) as ram:
            for start in range(0, len(ram), _PAGE):
                if wanted(ram[start:start + _PAGE]):
                    ram[start + offset] ^= 0x10
                    return
        raise LabError(f"flip a byte of {what}: no such page in {vm.ram_path}")
    finally:
        vm.qmp.command("cont")
