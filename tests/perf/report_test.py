"""What the benchmark's report makes of runs."""

import pathlib
import sys
import unittest

_PROJECT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_PROJECT / "perf"), str(_PROJECT / "tests")]
import plan  # noqa: E402
import report  # noqa: E402


def results(**values):
    return [{"load": "web", "link": "unlimited", "arm": arm.replace("_", "-"), "run": number,
             "total_ms": value, "verified": True}
            for arm, each in values.items() for number, value in enumerate(each, 1)]


class Report(unittest.TestCase):
    def test_arms_that_do_not_differ_by_more_than_they_spread_are_equal(self):
        found = results(slow=[900, 910, 950], same=[100, 140, 120], also=[110, 130, 150])
        self.assertEqual(report.ranking(found, plan.BASE, "total_ms"), [["same", "also"], ["slow"]])

    def test_an_arm_that_cannot_tell_is_not_ranked(self):
        found = results(one=[1, 2, 3]) + results(two=[None, None, None])
        self.assertEqual(report.ranking(found, plan.BASE, "total_ms"), [["one"]])
        self.assertEqual(report.median_and_mad([1, None]), (None, None))

    def test_median_and_spread(self):
        self.assertEqual(report.median_and_mad([5, 1, 2]), (2, 1))

    def test_the_table_has_a_line_an_arm(self):
        text = report.table(results(one=[1, 2, 3], two=[100, 200, 300]), [plan.BASE])
        self.assertIn("2.0 ±1.0", text)
        self.assertIn("200 ±100", text)
        self.assertIn("total_ms: one < two", text)
        self.assertIn("3/3", text)


    def test_multiples_of_the_floors(self):
        floors = {"tcp_round_trip_us": 60, "userfault_round_trip_us": 40, "tcp_stream_gb_s": 2.0}
        found = results(one=[1000, 1000, 1000])
        for result in found:
            result |= {"bytes_moved": 500_000_000, "fault_p50_us": 50}
        text = report.multiples(found, [plan.BASE], floors)
        self.assertIn("0.50 GB/s = 0.25 of one TCP stream", text)
        self.assertIn("wait p50 50 us = 0.50 of 100 us", text)


class Plan(unittest.TestCase):
    def test_arms_take_turns_and_the_base_point_has_more_runs(self):
        wanted = plan.full()
        self.assertEqual([run.arm for run in wanted[:4]], list(plan.ARMS))
        counts = {point: sum(run.point == point for run in wanted) for point in
                  {run.point for run in wanted}}
        self.assertEqual(counts[plan.BASE], 5 * len(plan.ARMS))
        self.assertLess(plan.estimate_s(wanted), 3 * 3600)
        self.assertLess(plan.estimate_s(plan.quick()), 600 + 60)

    def test_each_run_has_a_name_of_its_own(self):
        names = [run.name for run in plan.full()]
        self.assertEqual(len(names), len(set(names)))


if __name__ == "__main__":
    unittest.main()
