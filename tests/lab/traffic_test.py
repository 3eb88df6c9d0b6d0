"""What is made of the client's report and of the guest's readings of its own waits."""

import pathlib
import types
import unittest

from .load import Report
from .qemu import Config
from .scenario import Plan
from .traffic import traffic_of, waits_between


def reading(touches, waited_us, waits):
    return {"touches": touches, "limit_us": 2.0, "waited_us": waited_us, "waits": waits}


class Waits(unittest.TestCase):
    def test_only_what_came_between_the_readings_counts(self):
        found = waits_between(reading(1000, 50, [[2.5, 10], [30.0, 1]]),
                              reading(5000, 2050, [[2.5, 10], [30.0, 3], [900.0, 2]]))
        self.assertEqual(found["touches"], 4000)
        self.assertEqual(found["touch_waits"], 4)
        self.assertEqual(found["touch_waited_ms"], 2.0)
        self.assertEqual(found["touch_p50_us"], 900.0)
        self.assertEqual(found["touch_p99_us"], 900.0)

    def test_no_wait_at_all(self):
        found = waits_between(reading(0, 0, []), reading(9, 0, []))
        self.assertEqual(found["touch_waits"], 0)
        self.assertIsNone(found["touch_p50_us"])


class KeyValue(unittest.TestCase):
    def complaints(self, **changes):
        """Of a run with this report."""
        stage = types.SimpleNamespace(network=None, folder=pathlib.Path("/nowhere"))
        programs = types.SimpleNamespace(load_client="lab-load-client")
        traffic = traffic_of(Plan(config=Config(), load="key-value"), stage, programs)
        traffic._load.stop = lambda: Report({
            "finished_requests": 9, "failed_requests": 0, "lost_connections": 0, "wrong_values": 0,
            "windows": []} | changes)
        traffic.after()
        return traffic.complaints()

    def test_a_wrong_value_is_complained_of(self):
        self.assertEqual(self.complaints(), [])
        self.assertEqual(self.complaints(wrong_values=2, failed_requests=2),
                         ["2 requests failed", "2 values were wrong"])


if __name__ == "__main__":
    unittest.main()
