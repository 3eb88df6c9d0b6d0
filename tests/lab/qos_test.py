"""The verdict on pages and downloads."""

import unittest

from . import qos


def page(duration_s, start=0.0, outcome="finished"):
    return qos.Page(start, duration_s, 10_000, outcome)


def download(bytes_per_s, outcome="finished"):
    return qos.Page(0.0, 10.0, 10 * bytes_per_s, outcome, download=True)


class Grade(unittest.TestCase):
    def grade(self, each, mix="banking"):
        return qos.grade(each, qos.LIMITS[mix])

    def test_pages_by_their_time(self):
        self.assertEqual([self.grade(page(s)) for s in (2.0, 2.1, 4.0, 4.1)],
                         ["good", "tolerable", "tolerable", "bad"])
        self.assertEqual(self.grade(page(2.9), "ecommerce"), "good")

    def test_downloads_by_their_rate(self):
        self.assertEqual([self.grade(download(rate)) for rate in (99_000, 98_999, 95_000, 94_999)],
                         ["good", "tolerable", "tolerable", "bad"])

    def test_what_failed_is_bad_however_fast(self):
        self.assertEqual(self.grade(page(0.1, outcome="failed")), "bad")

    def test_what_is_unfinished_is_bad_or_unknown(self):
        self.assertIsNone(self.grade(page(3.0, outcome="unfinished")))
        self.assertEqual(self.grade(page(4.1, outcome="unfinished")), "bad")
        self.assertIsNone(self.grade(download(100_000, "unfinished")))
        self.assertEqual(self.grade(download(10, "unfinished")), "bad")


class Figures(unittest.TestCase):
    def test_only_pages_under_way_in_that_time_count(self):
        pages = [page(1.0, start) for start in (8.0, 9.5, 11.0, 20.0)]
        self.assertEqual(qos.figures("banking", pages, 10.0, 20.0)["pages"], 2)

    def test_the_limits_are_shares(self):
        good = [page(0.1)] * 95
        met = qos.figures("banking", good + [page(3.0)] * 4 + [page(5.0)], 0, 1)
        self.assertEqual((met["pages_good_share"], met["pages_tolerable_share"]), (0.95, 0.99))
        self.assertTrue(met["qos_met"])
        self.assertFalse(qos.figures("banking", good + [page(3.0)] * 6, 0, 1)["qos_met"])
        self.assertFalse(qos.figures("banking", good + [page(5.0)] * 2, 0, 1)["qos_met"])
        self.assertEqual(met["page_max_ms"], 5000)
        self.assertNotIn("downloads", met)

    def test_slow_downloads_alone_miss_it(self):
        found = qos.figures("support", [page(0.1)] * 9 + [download(100_000), download(50_000)], 0, 1)
        self.assertEqual((found["pages"], found["pages_good_share"]), (9, 1))
        self.assertEqual((found["downloads"], found["downloads_good_share"]), (2, 0.5))
        self.assertFalse(found["qos_met"])

    def test_without_pages_nothing_can_be_said(self):
        with self.assertRaises(ValueError):
            qos.figures("banking", [], 0, 1)


if __name__ == "__main__":
    unittest.main()
