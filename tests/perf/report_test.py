"""What the benchmark's report makes of runs."""

import dataclasses
import pathlib
import sys
import unittest

_PROJECT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_PROJECT / "perf"), str(_PROJECT / "tests")]
import plan  # noqa: E402
import report  # noqa: E402


def results(**values):
    return [{**dataclasses.asdict(plan.BASE), "arm": arm.replace("_", "-"), "run": number,
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
        self.assertIn("total: one < two", text)
        self.assertIn("3/3", text)

    def test_what_did_not_finish_is_counted_and_left_out_of_the_medians(self):
        found = results(one=[1, 2, 3])
        found[2] = {name: value for name, value in found[2].items()
                    if name not in ("total_ms", "verified")} | {"unfinished": "no end after 120 s"}
        text = report.table(found, [plan.BASE])
        self.assertIn("1.5 ±0.50", text)
        self.assertIn("2/3", text)
        self.assertIn("2/2", text)

    def test_only_opposite_orders_contradict(self):
        first = results(one=[1, 2, 3], two=[100, 110, 120], three=[200, 210, 220])
        second = results(one=[100, 110, 120], two=[1, 2, 3], three=[90, 110, 130])
        self.assertEqual(report.contradictions(first, second, [plan.BASE]),
                         [f"{plan.BASE}: total: one and two"])
        self.assertEqual(report.contradictions(first, first, [plan.BASE]), [])

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
        wanted = plan.runs(plan.full(), plan.ARMS)
        self.assertEqual([run.arm for run in wanted[:4]], list(plan.ARMS))
        counts = {point: sum(run.point == point for run in wanted) for point in plan.full()}
        self.assertEqual(counts.pop(plan.BASE), 5 * len(plan.ARMS))
        self.assertEqual(set(counts.values()), {3 * len(plan.ARMS)})

    def test_the_estimates_keep_to_what_is_promised(self):
        self.assertLess(plan.estimate_s(plan.runs(plan.full(), plan.ARMS)), 3 * 3600)
        self.assertLess(plan.estimate_s(plan.runs(plan.quick(), plan.QUICK_ARMS, plan.RUNS_QUICK)),
                        600)

    def test_one_factor_varies_at_a_time(self):
        for point in plan.full():
            base, other = dataclasses.astuple(plan.BASE), dataclasses.astuple(point)
            self.assertLessEqual(sum(a != b for a, b in zip(base, other)), 1, point)

    def test_a_load_over_a_link_that_the_plan_has_not_is_made(self):
        self.assertEqual(plan.chosen(plan.full(), ["idle"], ["1gbit"]), [plan.Point("idle", "1gbit")])
        self.assertEqual(plan.chosen(plan.full(), None, ["1gbit"]), [plan.Point(link="1gbit")])
        self.assertIn(plan.BASE, plan.chosen(plan.full(), ["web"], None))

    def test_every_point_can_be_played(self):
        for point in plan.full():
            played = plan.scenario_of(point, "guests")
            self.assertFalse(played.link_mbit and played.round_trip_ms, point)
            self.assertLess(played.config.guest.files_mib + played.config.guest.check_mib
                            + played.config.guest.touch_mib + played.config.guest.memcached_mib
                            + 9 * played.config.guest.web_dirs,
                            played.config.memory_mib - 200)
        visited = plan.scenario_of(plan.Point(load="specweb-support"), "guests")
        self.assertEqual((visited.load, visited.config.guest.web_dirs), ("specweb-support", plan.WEB_DIRS))
        delayed = plan.scenario_of(plan.Point(load="key-value", link="rtt-10ms"), "guests")
        self.assertEqual((delayed.load, delayed.round_trip_ms), ("key-value", 10))
        self.assertEqual(plan.scenario_of(plan.Point(load="touch-zipf"), "guests").config.guest.touch_order, "zipf")

    def test_each_run_has_a_name_of_its_own(self):
        names = [run.name for run in plan.runs(plan.full(), plan.ARMS)]
        self.assertEqual(len(names), len(set(names)))


if __name__ == "__main__":
    unittest.main()
