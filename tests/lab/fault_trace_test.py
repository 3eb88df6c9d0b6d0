"""Traces, as they are read and written."""

import pathlib
import tempfile
import unittest

from . import fault_trace
from .qemu_waits import Wait


class FaultTrace(unittest.TestCase):
    def test_what_is_written_can_be_read(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "x.trace")
            fault_trace.write(path, "web1", "run-1", {"ram": 1 << 30},
                              [Wait(100.5, "ram", 8192, 230.5), Wait(100.75, "my rom", 4096, 7.0)],
                              start=100.0, resume=100.25)
            self.assertEqual(path.read_text().splitlines(), [
                "postcopy-trace 1", "vm web1", "session run-1", "block 262144 4096 ram",
                "block 2 4096 my%20rom", "data 0 0 262144", "data 1 0 2", "resume 250000000",
                "fault 500000000 0 2 asked 230500", "fault 750000000 1 1 asked 7000", "end"])
            self.assertEqual(fault_trace.waits_us(path), [7.0, 230.5])

    def test_only_waits_that_are_known_count(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "x.trace")
            path.write_text("fault 1 0 5 asked 3000\nfault 2 0 5 joined -\nfault 3 0 6 present 900\n"
                            "fault 4 0 7 asked -\nfault 5 0 8 asked 1000\nend\n")
            self.assertEqual(fault_trace.waits_us(path), [1.0, 3.0])


if __name__ == "__main__":
    unittest.main()
