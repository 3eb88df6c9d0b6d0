"""What counts as a QEMU's own memory."""

import subprocess
import sys
import unittest

from . import memory

_SMAPS = """\
7fe623e00000-7fe663e00000 rw-p 00000000 00:00 0 
Size:            1048576 kB
Rss:              526336 kB
Anonymous:        526336 kB
VmFlags: rd wr mr mw me ac sd
7fe664000000-7fe6a3fff000 rwxp 00000000 00:00 0 
Size:            1048572 kB
Anonymous:         63488 kB
55c5cf52b000-55c5d05ab000 rw-p 00000000 00:00 0                          [heap]
Rss:                5200 kB
Anonymous:          5176 kB
55c5cf000000-55c5cf100000 r-xp 00000000 fe:00 1234                       /usr/bin/qemu
Anonymous:             8 kB
"""


class OwnBytes(unittest.TestCase):
    def test_guest_ram_and_translated_code_do_not_count(self):
        self.assertEqual(memory.own_bytes(_SMAPS, 1 << 30), (5176 + 8) << 10)

    def test_of_a_process_that_lives(self):
        process = subprocess.Popen([sys.executable, "-c", "import time; x = b'x' * (64 << 20); "
                                    "print(flush=True); time.sleep(20)"], stdout=subprocess.PIPE)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        process.stdout.readline()
        self.assertGreater(memory.beside_guest_ram(process.pid, 1 << 30), 64 << 20)


if __name__ == "__main__":
    unittest.main()
