"""What the comparison at process level makes of the words of its machine."""

import json
import pathlib
import sys
import unittest

_PROJECT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(_PROJECT / "perf"), str(_PROJECT / "tests")]
import process_figures  # noqa: E402


def line(arm, command_s=None, complete_s=None, run=1, **more):
    status = {"touches": 5000, "limit_us": 2.0, "waited_us": 3000,
              "waits": [[500.0, 4], [1000.0, 1]], "switched_s": 100.5, "gap_ms": 400.0,
              "wrong_words": 0, "lost_writes": 0} | more
    return "MEASURED " + json.dumps({"arm": arm, "run": run, "command_s": command_s,
                                     "complete_s": complete_s, "status": status})


CRIU = line("criu", 99.0, 103.0)
FETCHED = line("ours", after_switch_ms=700.04, total_ms=800.0)


class ProcessFigures(unittest.TestCase):
    def test_waits_are_those_since_the_switch(self):
        (found,) = process_figures.results(CRIU)
        self.assertEqual((found["touch_waits"], found["touch_waited_ms"]), (5, 3.0))
        self.assertEqual((found["touch_p50_us"], found["touch_p99_us"]), (500.0, 1000.0))
        self.assertTrue(found["verified"])

    def test_times_of_a_process_that_was_moved_are_from_the_command_and_from_the_switch(self):
        (found,) = process_figures.results(CRIU)
        self.assertEqual((found["total_ms"], found["after_switch_ms"], found["gap_ms"]),
                         (4000.0, 2500.0, 400.0))

    def test_a_process_that_stays_has_times_of_its_own_and_no_gap(self):
        (found,) = process_figures.results(FETCHED)
        self.assertEqual((found["total_ms"], found["after_switch_ms"], found["gap_ms"]),
                         (800.0, 700.0, None))

    def test_other_words_of_the_console_are_passed_over(self):
        console = f"\r\n{CRIU}\r\n[   39.6] reboot: Power down\r\n{FETCHED}\r\n"
        self.assertEqual([each["arm"] for each in process_figures.results(console)],
                         ["criu", "ours"])

    def test_memory_that_differs_is_not_verified(self):
        for wrong in ({"wrong_words": 3}, {"lost_writes": -1}):
            (found,) = process_figures.results(line("criu", 99.0, 103.0, **wrong))
            self.assertFalse(found["verified"])

    def test_a_run_without_a_switch_or_without_a_verdict_has_no_figures(self):
        with self.assertRaisesRegex(ValueError, "after_switch_ms"):
            process_figures.results(line("ours"))
        with self.assertRaises(ValueError):
            process_figures.results(CRIU.replace("switched_s", "other"))
        with self.assertRaises(ValueError):
            process_figures.results(CRIU[:40])

    def test_the_table_has_a_line_an_arm(self):
        console = "\n".join([CRIU, FETCHED, line("criu", 99.0, 105.0, run=2)])
        text = process_figures.table(process_figures.results(console))
        self.assertEqual(len(text.splitlines()), 3)
        self.assertRegex(text, r"criu .* 5000 ±1000 .* 2/2")
        self.assertRegex(text, r"ours .* - +1 +1/1")


if __name__ == "__main__":
    unittest.main()
