#!/usr/bin/env python3
"""Tests of the load client's visitors against a web site on loopback that misbehaves as each test says.

Needs the built client, as load_client_test.py; no namespace, no guest. The site's contents are computed here
a second time, from what guest/web_content.h promises.
"""

import json
import pathlib
import re
import struct
import subprocess
import sys
import threading
import unittest

if __package__ in (None, ""):  # run as a program
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
    __package__ = "lab"
from .content import GOLDEN, mix64
from .load import build_client
from .load_client_test import Server, response

_MASK = (1 << 64) - 1
_SEED = 7
_LOGIN, _LOGIN_FILES = "0.0", 8  # banking's first page, and what it embeds
_SIZES = {"0.0": 4000, "0.1": 17000, "0.3": 15000, "0.12": 13000, "0.14": 46000}  # others: as banking says
_OTHERS = {2: 11000, 4: 18000, 5: 34000, 6: 22000, 7: 24000, 8: 32000, 9: 29000, 10: 21000, 11: 25000,
           13: 16000, 15: 10757, 16: 5458}
_SIZES |= {f"0.{page}": size for page, size in _OTHERS.items()}


def key(kind, number):
    return mix64((mix64((_SEED + GOLDEN * (kind + 2)) & _MASK) + number) & _MASK)


def body(of, size):
    words = (mix64((of + i * GOLDEN) & _MASK) for i in range(1, (size + 7) // 8 + 1))
    return b"".join(struct.pack("<Q", word) for word in words)[:size]


class Site:
    """The guest's web site, its web program included."""

    def __init__(self):
        self._states, self._lock = {}, threading.Lock()
        self.asked = []

    def __call__(self, _number, path):
        with self._lock:
            self.asked.append(path)
            if path.startswith("/page?"):
                return [response(self._page(*path.removeprefix("/page?").split(".")))]
        directory, file_class, file = map(int, re.fullmatch(r"/w/(\d+)/c(\d)_(\d)", path).groups())
        return [response(body(key(1, (directory * 4 + file_class) * 9 + file),
                              (file + 1) * 1024 * 10**file_class // 10))]

    def _page(self, mix, page, account, visit):
        before = self._states[account] if int(visit) else key(3, int(account))
        word = int(mix) << 56 ^ int(page) << 48 ^ int(visit)
        self._states[account] = mix64((before + GOLDEN + word) & _MASK)
        return body(self._states[account], _SIZES[f"{mix}.{page}"])


class Visitors(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.client = str(build_client())

    def browse(self, answer, **options):
        server = Server(answer)
        self.addCleanup(server.close)
        asked = {"mix": "banking", "directories": 2, "content_seed": _SEED, "sessions": 2, "think_ms": 5,
                 "page_line": 0, "seconds": 0.4} | options
        words = [word for name, value in asked.items()
                 for word in (f"--{name.replace('_', '-')}", str(value))]
        done = subprocess.run([self.client, "browse", "--url-base", server.url, *words],
                              capture_output=True, text=True, timeout=20, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    def test_a_right_site_is_found_right(self):
        site = Site()
        report = self.browse(site)
        self.assertEqual((report["failed_requests"], report["lost_connections"]), (0, 0))
        finished = [page for page in report["pages"] if page["outcome"] == "finished"]
        self.assertGreater(len(finished), 0)
        self.assertEqual(finished[0]["type"], "login")
        self.assertLessEqual(len(site.asked), report["finished_requests"] + report["unfinished_requests"])

    def test_a_page_has_what_it_embeds(self):
        site = Site()
        self.browse(site, sessions=1, think_ms=60000, seconds=1)
        self.assertTrue(site.asked[0].startswith(f"/page?{_LOGIN}."))
        self.assertEqual(len(site.asked), 1 + _LOGIN_FILES)

    def test_one_wrong_byte_fails_the_page_and_the_visitor_leaves(self):
        site = Site()
        def answer(number, path):
            whole = site(number, path)[0]
            return [whole[:-1] + bytes([whole[-1] ^ 1])] if number == 4 else [whole]
        report = self.browse(answer, sessions=1)
        self.assertEqual([failure["cause"] for failure in report["failures"]], ["content"])
        self.assertEqual([page["outcome"] for page in report["pages"]].count("failed"), 1)
        self.assertGreater(report["sessions"], 1)

    def test_a_forgotten_visit_is_wrong_content(self):
        site = Site()
        def answer(number, path):
            if path.startswith("/page?") and not path.endswith(".0"):
                site._states[path.split(".")[2]] = 1
            return site(number, path)
        report = self.browse(answer)
        self.assertEqual({failure["cause"] for failure in report["failures"]}, {"content"})

    def test_a_lost_connection_is_counted_and_nothing_asked_for_again(self):
        site = Site()
        def answer(number, path):
            right = site(number, path)
            return [] if number == 0 else right
        report = self.browse(answer)
        self.assertEqual((report["failed_requests"], report["lost_connections"]), (1, 1))
        pages = [path for path in site.asked if path.startswith("/page?")]
        self.assertEqual(len(pages), len(set(pages)))

    def test_visitors_of_an_open_loop_come_whether_or_not_others_are_served(self):
        report = self.browse(lambda number, path: None, arrivals_per_s=50)
        self.assertGreater(report["sessions"], 8)
        self.assertEqual({page["outcome"] for page in report["pages"]}, {"unfinished"})

    def test_a_line_makes_pages_slow(self):
        report = self.browse(Site(), page_line=5000, sessions=1)
        self.assertNotIn("finished", [page["outcome"] for page in report["pages"]])
        self.assertEqual(report["failed_requests"], 0)

    def test_the_same_seed_makes_the_same_visit(self):
        paths = []
        for _ in range(2):
            site = Site()
            self.browse(site, sessions=1, think_ms=60000, seed=3, seconds=1)
            paths.append(sorted(site.asked))
        self.assertEqual(*paths)

    def test_usage_errors_exit_with_2(self):
        for arguments in (["--mix", "bank"], ["--sessions", "0"], ["--directories", "0"]):
            done = subprocess.run([self.client, "browse", "--url-base", "http://127.0.0.1", *arguments],
                                  capture_output=True, check=False)
            self.assertEqual(done.returncode, 2, arguments)


if __name__ == "__main__":
    unittest.main()
