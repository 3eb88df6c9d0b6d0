#!/usr/bin/env python3
"""What bash completes, with the real programs; only the list of VMs is a stand-in's."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from programs import CTL, DAEMON, PROJECT, commands_in_help, help_of, options_in_help

# Answers `list` as a daemon with two VMs would, and notes which daemon was asked.
STAND_IN = """#!/bin/sh
if [ "$1" = list ]; then
  echo "$@" >"$0.asked"
  printf '{\\n  "vms": [\\n    {\\n      "name": "web1",\\n      "pid": 7\\n    },\\n'
  printf '    {\\n      "name": "web2"\\n    }\\n  ]\\n}\\n'
  exit 0
fi
exec %s "$@"
"""

# Completes the last of the words, as an interactive bash calls the function.
COMPLETE = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="${COMP_WORDS[*]}"
# An interactive bash splits at colons.
COMP_LINE=${COMP_LINE// : /:}; COMP_POINT=${#COMP_LINE}
function=$(complete -p "$1" | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
"$function"
printf '%s\\n' "${COMPREPLY[@]}"
"""


class CompletionTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.ctl = pathlib.Path(folder.name) / "postcopyctl"
        self.ctl.write_text(STAND_IN % CTL)
        self.ctl.chmod(0o755)
        (self.ctl.parent / "uffd-server").symlink_to(DAEMON)

    def complete(self, line):
        """What the last word of `line` may become; it is empty after a blank."""
        words = line.split(" ")
        path = f"{self.ctl.parent}:{os.environ['PATH']}"
        done = subprocess.run(
            ["bash", "--norc", "-c", COMPLETE, "bash",
             PROJECT / "packaging/completion" / words[0], *words],
            capture_output=True, text=True, check=True, timeout=30,
            env=dict(os.environ, PATH=path))
        self.assertEqual(done.stderr, "")
        return {word for word in done.stdout.splitlines() if word}

    def asked(self):
        """The command line of the last `list`; None without one."""
        note = pathlib.Path(f"{self.ctl}.asked")
        return note.read_text().strip() if note.exists() else None

    def test_commands(self):
        self.assertEqual(self.complete("postcopyctl "), commands_in_help(help_of(CTL)))
        self.assertEqual(self.complete("postcopyctl --json re"), {"relocate", "recover", "release"})

    def test_options(self):
        general = {f"--{name}" for name in options_in_help(help_of(CTL))}
        own = {f"--{name}" for name in options_in_help(help_of(CTL, "relocate"))}
        self.assertEqual(self.complete("postcopyctl --"), general)
        self.assertEqual(self.complete("postcopyctl relocate web1 --"), general | own)
        self.assertEqual(self.complete("postcopyctl relocate --ke"), {"--keep-source"})

    def test_names_of_vms(self):
        self.assertEqual(self.complete("postcopyctl relocate "), {"web1", "web2"})
        self.assertEqual(self.asked(), "list --json")
        self.assertEqual(self.complete("postcopyctl watch --json web2"), {"web2"})
        self.assertEqual(self.complete("postcopyctl --daemon 10.0.0.7 : 7700 stats w"),
                         {"web1", "web2"})
        self.assertEqual(self.asked(), "list --json --daemon 10.0.0.7:7700")

    def test_no_name_where_none_belongs(self):
        for line in ("postcopyctl list ", "postcopyctl relocate web1 ",
                     "postcopyctl relocate web1 --to ", "postcopyctl --daemon "):
            self.assertEqual(self.complete(line), set(), line)
        self.assertIsNone(self.asked())

    def test_daemon(self):
        self.assertEqual(self.complete("uffd-server --"),
                         {f"--{name}" for name in options_in_help(help_of(DAEMON))})
        self.assertIn("debug", self.complete("uffd-server --log-level "))
        self.assertEqual(self.complete("uffd-server --agent-group roo"), {"root"})
        self.assertIn("/etc/postcopy" if pathlib.Path("/etc/postcopy").exists() else "/etc/passwd",
                      self.complete("uffd-server --config /etc/p"))


if __name__ == "__main__":
    sys.exit(unittest.main())
