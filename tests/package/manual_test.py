#!/usr/bin/env python3
"""The manual pages describe what the programs and the library have, and nothing else."""

import re
import sys
import unittest

from programs import CTL, DAEMON, PROJECT, commands_in_help, help_of, options_in_help

PAGES = PROJECT / "docs/man"
REQUIRED = ["NAME", "SYNOPSIS", "DESCRIPTION", "FILES", "EXAMPLES", "SEE ALSO"]


def sections(page):
    """The text below each heading of a page by its title; .SS counts as well as .SH."""
    text = (PAGES / page).read_text().replace("\\-", "-")
    parts = re.split(r'^\.S[HS] (.*)\n', text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2]))


def described(text):
    """The first lines of the .TP paragraphs in `text`."""
    return re.findall(r"^\.TP\n(.*)", text, re.MULTILINE)


def options_described(text):
    return {name for line in described(text) for name in re.findall(r"--([a-z-]+)", line)}


class ManualTest(unittest.TestCase):
    def test_every_page_has_its_sections(self):
        more = {"uffd-server.8": ["OPTIONS", "EXIT STATUS", "ENVIRONMENT", "LIMITATIONS"],
                "postcopyctl.1": ["COMMANDS", "OPTIONS", "EXIT STATUS", "ENVIRONMENT",
                                  "LIMITATIONS"],
                "uffd-server.toml.5": ["KEYS"],
                "libpostcopy.3": ["RETURN VALUE", "ERRORS", "LIMITATIONS"]}
        self.assertEqual(sorted(more), sorted(path.name for path in PAGES.iterdir()))
        for page, titles in more.items():
            for title in REQUIRED + titles:
                self.assertIn(title, sections(page), page)

    def test_daemon_has_the_options_that_are_described(self):
        self.assertEqual(options_described(sections("uffd-server.8")["OPTIONS"]),
                         options_in_help(help_of(DAEMON)))

    def test_file_has_the_keys_that_are_described(self):
        keys = {re.match(r"\.BR ([a-z-]+) ", line).group(1)
                for line in described(sections("uffd-server.toml.5")["KEYS"])}
        not_in_file = {"help", "version", "config", "fault"}
        self.assertEqual(keys, options_in_help(help_of(DAEMON)) - not_in_file)

    def test_hook_has_the_variables_that_are_described(self):
        source = (PROJECT / "libpostcopy/preload/attachment.cc").read_text()
        self.assertEqual(
            {line.split()[-1] for line in described(sections("uffd-server.8")["ENVIRONMENT"])},
            set(re.findall(r'getenv\("(POSTCOPY_[A-Z]+)"\)', source)))

    def test_postcopyctl_has_the_commands_and_options_that_are_described(self):
        page = sections("postcopyctl.1")
        overview = help_of(CTL)
        self.assertEqual(options_described(page["OPTIONS"]), options_in_help(overview))
        titles = {title.split()[0]: title for title in page if title.islower() or " VM" in title}
        self.assertEqual(set(titles), commands_in_help(overview))
        for command, title in titles.items():
            text = help_of(CTL, command)
            self.assertEqual(options_described(page[title]), options_in_help(text) - {"help", "daemon", "json"},
                             command)
            self.assertEqual(title.endswith(" VM"), "\n  vm " in text, command)

    def test_postcopyctl_has_the_exit_codes_that_are_described(self):
        self.assertEqual(
            [line.split()[-1] for line in described(sections("postcopyctl.1")["EXIT STATUS"])],
            re.findall(r"^  (\d)  ", help_of(CTL), re.MULTILINE))

    def test_library_has_the_functions_that_are_described(self):
        exported = re.findall(r"^ +(postcopy_\w+);", (PROJECT / "libpostcopy/postcopy.map").read_text(),
                              re.MULTILINE)
        page = sections("libpostcopy.3")
        name = " ".join(page["NAME"].split())
        self.assertEqual(re.findall(r"postcopy_\w+", name), exported)
        self.assertEqual(re.findall(r"(postcopy_\w+)\(", page["SYNOPSIS"]), exported)
        described_there = [line for title in ("Version", "Attach", "Engine")
                           for line in described(page[title])]
        self.assertEqual([found.group(1) for line in described_there
                          if (found := re.match(r"\.B (postcopy_\w+)\(\)", line))], exported)

    def test_library_names_the_errors_of_the_header(self):
        header = (PROJECT / "libpostcopy/include/postcopy/postcopy.h").read_text()
        codes = {code for line in described(sections("libpostcopy.3")["ERRORS"])
                 for code in re.findall(r"-(E[A-Z]+)", line)}
        self.assertEqual(codes, set(re.findall(r"-(E[A-Z]{3,})", header)))


if __name__ == "__main__":
    sys.exit(unittest.main())
