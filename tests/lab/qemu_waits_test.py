"""What is read of a QEMU's trace."""

import pathlib
import tempfile
import unittest

from . import qemu_waits

_TRACE = """\
23459@1795297706.631277:postcopy_ram_fault_thread_request Request for HVA=0x7f946bec0000 rb=ram offset=0xc0000 pid=23025
23459@1795297706.631300:postcopy_ram_fault_thread_request Request for HVA=0x7f9471b0f000 rb=ram offset=0x5d0f000 pid=23025
23459@1795297706.631400:postcopy_ram_fault_thread_request Request for HVA=0x7f946bec0000 rb=ram offset=0xc0000 pid=23026
23461@1795297706.632204:postcopy_page_req_del resolved page req 0x7f9471b0f000 total 1
qemu-system-x86_64: warning: something else
23461@1795297706.632277:postcopy_page_req_del resolved page req 0x7f946bec0000 total 0
23459@1795297706.632300:postcopy_ram_fault_thread_request Request for HVA=0x7f9471b11000 rb=ram offset=0x5d11000 pid=23025
"""


class QemuWaits(unittest.TestCase):
    def test_from_the_first_request_to_the_page(self):
        waits = qemu_waits.waits_of(_TRACE.splitlines())
        self.assertEqual([(wait.block, wait.offset) for wait in waits],
                         [("ram", 0xc0000), ("ram", 0x5d0f000)])
        self.assertAlmostEqual(waits[0].wait_us, 1000, delta=1)
        self.assertAlmostEqual(waits[1].wait_us, 904, delta=1)

    def test_a_trace_that_is_not_there_tells_of_no_wait(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(qemu_waits.read(pathlib.Path(folder, "absent")), [])


if __name__ == "__main__":
    unittest.main()
