#!/usr/bin/env python3
"""Every byte of guest RAM arrives, whichever way it takes."""

import support
from byte_comparison import ByteComparison
from lab import guest, qemu


class EveryByte(ByteComparison):
    config = qemu.Config(memory_mib=512, guest=guest.Parameters(files_mib=128, check_mib=64))

    def test_into_a_sparse_RAM_file(self):
        has_data = self.relocate_and_compare({}, {})
        self.assertLess(has_data, self.config.memory_mib << 20, "the source's file is not sparse")

    def test_into_a_RAM_file_with_prealloc(self):
        self.relocate_and_compare({"prealloc": True}, {"prealloc": True})

    def test_into_anonymous_RAM(self):
        self.relocate_and_compare({}, {"ram": "anon"})


if __name__ == "__main__":
    support.main()
