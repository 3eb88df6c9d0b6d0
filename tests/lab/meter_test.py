"""The meter over a process that works and one that sleeps."""

import subprocess
import sys
import time
import unittest

from .meter import Meter

_WORK = "import time\nend = time.monotonic() + 20\nwhile time.monotonic() < end: pass"


class MeterTest(unittest.TestCase):
    def start(self, code):
        process = subprocess.Popen([sys.executable, "-c", code])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def test_work_begun_after_the_idle_time_is_counted_and_steady_work_is_not(self):
        steady = self.start(_WORK)
        with Meter([(steady.pid, [])]) as meter:
            time.sleep(1.2)
            start = time.time()
            time.sleep(0.4)
            self.assertLess(abs(meter.cost_s(start, time.time(), idle_s=1.0)), 0.3)

    def test_threads_that_do_not_count(self):
        steady = self.start(_WORK)
        with Meter([(steady.pid, [steady.pid])]) as meter:
            time.sleep(0.5)
            self.assertLess(meter.cost_s(time.time(), time.time(), idle_s=0.2), 0.05)

    def test_a_process_that_ends_keeps_what_it_has_used(self):
        brief = self.start("sum(i * i for i in range(3_000_000))")
        with Meter([(brief.pid, [])]) as meter:
            time.sleep(0.15)
            working = time.time()
            brief.kill()
            brief.wait()
            time.sleep(0.5)
            self.assertGreaterEqual(meter.cost_s(working, time.time(), idle_s=1e-6), 0)

    def test_too_short_a_time_before_the_start_is_refused(self):
        with Meter([]) as meter, self.assertRaises(ValueError):
            meter.cost_s(time.time(), time.time(), idle_s=60)


if __name__ == "__main__":
    unittest.main()
