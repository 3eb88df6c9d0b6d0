#!/usr/bin/env python3
"""Unit tests of timeline.py."""

import pathlib
import sys
import unittest

if __package__ in (None, ""):  # run as a program
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
    __package__ = "lab"
from .timeline import Marks, Window, base_rate, longest_gap_ms, lost_service_ms, recovery_ms, \
    render

START = 1_700_000_000.0  # whole windows, and as inexact in binary as real times


def run_of(*counts, start=START):
    """Windows with these counts, one after the other; gaps as if requests were evenly spread."""
    return [Window(start + i / 10, count, 100 / count if count else 0.0)
            for i, count in enumerate(counts)]


class BaseRate(unittest.TestCase):
    def test_is_the_median_of_the_five_seconds_before_the_command(self):
        windows = run_of(*[10] * 30, *[100] * 26, *[90] * 24, *[5] * 20)
        self.assertEqual(base_rate(windows, START + 8.0), 100)

    def test_leaves_out_the_window_in_which_the_command_came(self):
        self.assertEqual(base_rate(run_of(*[100] * 50, 0, 0), START + 5.05), 100)

    def test_refuses_a_load_that_began_too_late(self):
        with self.assertRaisesRegex(ValueError, "began too late"):
            base_rate(run_of(*[100] * 40), START + 4.0)

    def test_refuses_a_server_that_did_not_serve(self):
        with self.assertRaisesRegex(ValueError, "no request"):
            base_rate(run_of(*[0] * 50), START + 5.0)


class LostService(unittest.TestCase):
    def test_counts_only_windows_under_the_threshold(self):
        windows = run_of(*[100] * 50, 0, 50, 79, 80, 100, *[100] * 100)
        self.assertAlmostEqual(lost_service_ms(windows, START + 5, START + 5.2, 100),
                               100 + 50 + 21)

    def test_begins_with_the_window_of_the_command(self):
        windows = run_of(*[0] * 50, 0, *[100] * 110)
        self.assertAlmostEqual(lost_service_ms(windows, START + 5.05, START + 5.2, 100), 100)

    def test_ends_ten_seconds_after_commit(self):
        windows = run_of(*[100] * 51, *[100] * 99, 0, 0, 0, 0)
        self.assertAlmostEqual(lost_service_ms(windows, START + 5, START + 5.1, 100), 100)

    def test_refuses_a_load_that_ended_too_early(self):
        with self.assertRaisesRegex(ValueError, "the load ended"):
            lost_service_ms(run_of(*[100] * 100), START + 5, START + 5.1, 100)


class Recovery(unittest.TestCase):
    MARKS = Marks(command=START + 5, stop=START + 5.1, resume=START + 5.2, commit=START + 6)

    def test_is_when_half_a_second_of_the_former_rate_begins_after_the_resume(self):
        windows = run_of(*[100] * 52, *[0] * 3, 100, 100, 20, *[90] * 120)
        self.assertAlmostEqual(recovery_ms(windows, self.MARKS, 100), 800, places=3)

    def test_nothing_if_the_rate_stays_below(self):
        self.assertIsNone(recovery_ms(run_of(*[100] * 52, *[89] * 120), self.MARKS, 100))


class LongestGap(unittest.TestCase):
    def test_is_the_longest_that_ended_in_the_span(self):
        windows = run_of(*[100] * 160)
        windows[20] = Window(windows[20].start, 10, 900.0)
        windows[55] = Window(windows[55].start, 10, 240.0)
        self.assertEqual(longest_gap_ms(windows, START + 5, START + 5.5), 240.0)

    def test_counts_a_gap_that_is_open_at_the_end(self):
        windows = run_of(*[100] * 150, *[0] * 10)
        self.assertAlmostEqual(longest_gap_ms(windows, START + 5, START + 6), 1000)


class Render(unittest.TestCase):
    def setUp(self):
        self.windows = run_of(*[100] * 50, 90, 0, 40, *[100] * 300)
        self.marks = Marks(START + 5.02, START + 5.1, START + 5.13, START + 20.0)
        self.lines = render(self.windows, self.marks, 100).splitlines()

    def test_no_line_is_longer_than_the_width(self):
        for width in (60, 80, 100):
            text = render(self.windows, self.marks, 100, width=width)
            self.assertLessEqual(max(map(len, text.splitlines())), width)

    def test_marks_stand_beside_their_window(self):
        marked = [line for line in self.lines if "<" in line]
        self.assertEqual([line.split("<")[1].strip() for line in marked],
                         ["command", "stop, resume", "commit"])
        self.assertIn(" 90 #", marked[0])
        self.assertNotIn("#", marked[1])

    def test_the_quiet_stretch_is_one_line(self):
        self.assertEqual(sum("..." in line for line in self.lines), 2)
        self.assertLess(len(self.lines), 45)

    def test_an_empty_run_is_only_a_title(self):
        self.assertEqual(len(render([], self.marks, 100).splitlines()), 1)


if __name__ == "__main__":
    unittest.main()
