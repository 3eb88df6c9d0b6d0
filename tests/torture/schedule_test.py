#!/usr/bin/env python3
"""The schedule of a torture follows from its seed alone, has every kind in it, and keeps its bounds;
and which injections are due in a hop."""

import unittest

import schedule
from schedule import ANY, ARRIVING, KINDS, PREPARE, SWITCH, Injection, Schedule, due_and_over


def hops(seed, count, without=()):
    found = Schedule(seed, without)
    return [found.next_hop() for _ in range(count)]


class ScheduleOfASeed(unittest.TestCase):
    def test_the_same_seed_has_the_same_schedule(self):
        self.assertEqual(hops(7, 100), hops(7, 100))

    def test_it_does_not_change_by_how_many_hops_are_played(self):
        self.assertEqual(hops(7, 100)[:10], hops(7, 10))

    def test_another_seed_has_another_schedule(self):
        self.assertNotEqual(hops(7, 10), hops(8, 10))

    def test_it_is_the_same_on_every_machine(self):
        first = hops(7, 1)[0][0]
        self.assertEqual((first.kind, first.phase, round(first.after_s, 6)), FIRST_OF_SEED_7)

    def test_every_kind_occurs_within_twelve_hops_of_any_seed(self):
        for seed in range(200):
            kinds = {each.kind for hop in hops(seed, 12) for each in hop}
            self.assertEqual(kinds, set(KINDS), f"seed {seed}")

    def test_every_kind_occurs_in_each_of_its_phases(self):
        seen = {(each.kind, each.phase) for hop in hops(1, 1000) for each in hop}
        for kind in (schedule.CUTS, schedule.FLAPS, schedule.RESETS, schedule.DAEMON_STALLS):
            for phase in (PREPARE, SWITCH, ARRIVING, ANY):
                self.assertIn((kind, phase), seen)
        for kind in (schedule.DAEMON_KILLS, schedule.VMM_KILLS):
            self.assertEqual({phase for name, phase in seen if name == kind}, {PREPARE, SWITCH})
        for kind in (schedule.ARRIVING_KILLS, schedule.FOREIGN_CONTS, schedule.SOURCE_ENDS):
            self.assertEqual({phase for name, phase in seen if name == kind}, {ARRIVING})
        self.assertEqual({phase for name, phase in seen if name == schedule.PAUSES}, {PREPARE, ARRIVING})

    def test_bounds_hold(self):
        for hop in hops(3, 2000):
            self.assertLessEqual(len(hop), 5)
            for each in hop:
                self.assertTrue(0 <= each.after_s <= schedule.LATEST_S[each.phase], each)
                self.assertIn(each.side, ("source", "destination"))
                self.check_bounds(each)

    def check_bounds(self, each):
        if each.kind == schedule.CUTS:
            self.assertTrue(schedule.SHORTEST_CUT_S <= each.seconds <= schedule.LONGEST_CUT_S)
        elif each.kind == schedule.FLAPS:
            self.assertTrue(3 <= len(each.pulses) <= 8)
            self.assertEqual(each.lasts_s, sum(down + up for down, up in each.pulses))
            self.assertLessEqual(each.lasts_s, 8 * 1.1)
        elif each.kind == schedule.SHAPES:
            self.assertIn(each.mbit, schedule.RATES_MBIT)
        elif each.kind in (schedule.DAEMON_KILLS, schedule.ARRIVING_KILLS):
            self.assertTrue(0 <= each.seconds <= schedule.LONGEST_ABSENCE_S)
        elif each.kind == schedule.DAEMON_STALLS:
            self.assertTrue(0.2 <= each.seconds <= schedule.LONGEST_STALL_S)
        elif each.kind == schedule.PAUSES:
            self.assertTrue(0.1 <= each.seconds <= schedule.LONGEST_PAUSE_S)
        elif each.kind == schedule.BALLOONS:
            self.assertTrue(schedule.FEWEST_MIB <= each.mib <= schedule.MOST_MIB)

    def test_short_cuts_are_as_frequent_as_long_ones(self):
        cuts = [each.seconds for hop in hops(5, 2000) for each in hop if each.kind == schedule.CUTS]
        short = sum(seconds < 0.9 for seconds in cuts) / len(cuts)
        self.assertTrue(0.4 < short < 0.6, short)

    def test_a_kind_that_is_left_out_changes_nothing_else(self):
        left_out = (schedule.ARRIVING_KILLS, schedule.CUTS)
        for hop, whole in zip(hops(7, 100, left_out), hops(7, 100)):
            self.assertEqual(hop, tuple(each for each in whole if each.kind not in left_out))

    def test_a_kind_that_there_is_not_is_refused_by_name(self):
        with self.assertRaisesRegex(ValueError, "no kind 'kills'; there are cuts, flaps"):
            Schedule(1, ["cuts", "kills"])

    def test_each_can_be_told_in_words(self):
        for hop in hops(2, 200):
            for each in hop:
                self.assertTrue(str(each))


def injection(phase, after_s):
    return Injection(schedule.CUTS, phase, after_s, "source", seconds=1)


class DueAndOver(unittest.TestCase):
    def test_what_is_due_is_so_long_after_its_phase_has_begun(self):
        left = [injection(ARRIVING, 0.5), injection(ARRIVING, 2), injection(ANY, 5), injection(ANY, 7)]
        begun = {ANY: 100, PREPARE: 100, SWITCH: 104, ARRIVING: 105}
        self.assertEqual(due_and_over(left, ARRIVING, begun, 105.6), ([left[0], left[2]], []))

    def test_what_was_for_an_earlier_phase_is_over(self):
        left = [injection(PREPARE, 0.4), injection(SWITCH, 0.01), injection(ARRIVING, 0)]
        begun = {ANY: 100, PREPARE: 100, SWITCH: 100.2}
        self.assertEqual(due_and_over(left, SWITCH, begun, 100.201), ([], [left[0]]))

    def test_what_is_left_of_an_attempt_that_was_rolled_back_is_for_the_next_one(self):
        left = [injection(PREPARE, 0.4), injection(ARRIVING, 0), injection(ANY, 1)]
        begun = {ANY: 100, PREPARE: 100, SWITCH: 100.2}
        self.assertEqual(due_and_over(left, None, begun, 103), ([left[2]], []))


FIRST_OF_SEED_7 = ("cuts", "switch", 0.023954)

if __name__ == "__main__":
    unittest.main()
