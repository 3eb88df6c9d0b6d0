"""What is made of the client's report and of the guest's readings of its own waits."""

import pathlib
import types
import unittest

from .commands import LabError
from .guest import Parameters
from .load import Report
from .qemu import Config
from .scenario import Plan
from .timeline import Marks
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


class Visits(unittest.TestCase):
    def traffic(self, load, **parameters):
        stage = types.SimpleNamespace(network=None, folder=pathlib.Path("/nowhere"))
        programs = types.SimpleNamespace(load_client="lab-load-client")
        return traffic_of(Plan(config=Config(guest=Parameters(**parameters)), load=load), stage, programs)

    def test_what_the_pages_say_stands_in_place_of_lost_service(self):
        traffic = self.traffic("specweb-banking", web_dirs=16)
        windows = [{"start_ms": 100 * n, "count": 9, "gap_us": 20_000} for n in range(250)]
        pages = [{"start_ms": 1000 * n, "duration_ms": 500 if n < 8 else 3000, "bytes": 9_000,
                  "outcome": "finished", "download": False} for n in range(20)]
        failures = [{"path": "/w/1/c0_3", "cause": "content"}]
        traffic._load.stop = lambda: Report({
            "finished_requests": 99, "failed_requests": 1, "lost_connections": 0, "windows": windows,
            "pages": pages, "failures": failures})
        traffic.after()
        found = traffic.figures(Marks(command=6.0, stop=6.1, resume=6.2, commit=8.0))
        self.assertEqual((found["pages"], found["pages_good_share"], found["longest_gap_ms"]),
                         (12, 0.1667, 20))
        self.assertTrue(found["qos_met_before"])
        self.assertFalse(found["qos_met"])
        self.assertNotIn("lost_service_ms", found)
        self.assertEqual(traffic.complaints(),
                         ["1 requests failed", "wrong content came, first of /w/1/c0_3"])

    def test_a_mix_that_there_is_not_and_a_guest_without_a_site_are_refused(self):
        with self.assertRaisesRegex(LabError, "no mix 'bank'"):
            self.traffic("specweb-bank", web_dirs=16)
        with self.assertRaisesRegex(LabError, "no web site"):
            self.traffic("specweb-banking")


if __name__ == "__main__":
    unittest.main()
