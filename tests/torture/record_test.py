#!/usr/bin/env python3
"""What a torture says of itself, and how its agenda keeps time."""

import unittest

from agenda import Agenda
from record import Entry, Record


class LastLine(unittest.TestCase):
    def setUp(self):
        self.record = Record(7)
        self.record.seconds = 180.2
        for number in range(3):
            self.record.add(Entry(1.5, 1, "a -> b", "cuts", "link cut", "arriving + 20 ms"))
        self.record.add(Entry(1.5, 1, "a -> b", "resets", "reset", "switch + 3 ms"))
        self.record.add(Entry(2, 1, "a -> b", "resets", "reset", "switch + 3 ms", "there was none"))

    def test_it_counts_what_was_injected_and_survived(self):
        self.record.end_attempt("rolled back")
        self.record.end_attempt("committed")
        self.record.end_attempt("committed")
        self.assertEqual(self.record.line(), "torture: seed 7, 180 s, 3 hops (2 committed, 1 rolled back), "
                         "injected 4 (cuts 3, resets 1), survived 4, lost 0, wrong 0")
        self.assertTrue(self.record.ok)

    def test_what_a_lost_vm_has_not_survived_is_not_counted_as_survived(self):
        self.record.end_attempt("committed")
        self.record.add(Entry(3, 2, "b -> a", "cuts", "link cut", "switch + 2 ms"))
        self.record.lost += 1
        self.assertTrue(self.record.line().endswith("injected 5 (cuts 4, resets 1), survived 4, lost 1, "
                                                    "wrong 0"))
        self.assertFalse(self.record.ok)

    def test_what_was_left_over_is_said_and_is_no_loss(self):
        self.record.left_over += 1
        self.assertTrue(self.record.line().endswith("lost 0, wrong 0, left over 1"))
        self.assertTrue(self.record.ok)

    def test_nothing_at_all(self):
        self.assertEqual(Record(1).line(), "torture: seed 1, 0 s, 0 hops, injected 0, survived 0, lost 0, "
                         "wrong 0")

    def test_the_log_says_when_what_and_where_in_the_hop(self):
        lines = self.record.log().splitlines()
        self.assertEqual(lines[3].strip(), "1.500 s  hop 1 (a -> b), switch + 3 ms: resets, reset")
        self.assertTrue(lines[4].endswith("reset: missed, there was none"))

    def test_the_figures_tell_injected_from_missed(self):
        figures = self.record.figures()
        self.assertEqual(figures["injected_by_kind"], {"cuts": 3, "resets": 1})
        self.assertEqual(figures["missed_by_kind"], {"resets": 1})
        self.assertEqual(len(figures["injections"]), 5)


class Actions(unittest.TestCase):
    def setUp(self):
        self.now = 100.0
        self.done = []
        self.agenda = Agenda(lambda: self.now)

    def disturb(self, *moments):
        self.agenda.disturb(*((moment, lambda m=moment: self.done.append(m)) for moment in moments))

    def test_each_is_done_when_it_is_due_in_order(self):
        self.disturb(2, 1)
        self.disturb(1.5)
        self.agenda.run_due()
        self.assertEqual(self.done, [])
        self.now += 1.6
        self.agenda.run_due()
        self.assertEqual(self.done, [1, 1.5])
        self.assertTrue(self.agenda.busy)
        self.now += 1
        self.agenda.run_due()
        self.assertFalse(self.agenda.busy)
        self.assertEqual(self.agenda.disturbed_at, 102.6)

    def test_one_that_is_over_at_once_counts_as_a_disturbance(self):
        self.now += 5
        self.agenda.disturb()
        self.assertFalse(self.agenda.busy)
        self.assertEqual(self.agenda.disturbed_at, 105)

    def test_at_the_end_all_that_is_left_is_done(self):
        self.disturb(30, 20)
        self.agenda.finish()
        self.assertEqual(self.done, [20, 30])
        self.assertFalse(self.agenda.busy)


if __name__ == "__main__":
    unittest.main()
