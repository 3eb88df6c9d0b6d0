"""What is made of the guest's readings of its own waits."""

import unittest

from .traffic import waits_between


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


if __name__ == "__main__":
    unittest.main()
