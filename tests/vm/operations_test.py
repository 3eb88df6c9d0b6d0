#!/usr/bin/env python3
"""docs/operations.md, step by step: its commands as they stand there, on two hosts (manual.py)."""

import json
import pathlib
import re

import support
from manual import ManualTest

_MANUAL = pathlib.Path(__file__).resolve().parents[2] / "docs/operations.md"
_BLOCK = re.compile(r"^```sh (a|b|both)( service)?\n(.*?)^```$", re.M | re.S)


class Operations(ManualTest):
    def test_the_manual_step_by_step(self):
        blocks = _BLOCK.findall(_MANUAL.read_text())
        self.assertGreater(len(blocks), 8)
        for where, service, text in blocks:
            for host in "ab" if where == "both" else where:
                shell = self.shells[host]
                if service:
                    self.start_daemon(host)
                    continue
                print(f"--- {host}\n{text.rstrip()}")
                print(shell.run(self.adapted(text)), flush=True)
            if re.match(r"start-web1$", text, re.M):
                self.await_guest()
        listed = self.shells["a"].run("postcopyctl list --json")
        self.assertEqual([(vm["name"], vm["guest_state"]) for vm in json.loads(listed)["vms"]],
                         [("web1", "running")])
        self.assertEqual(self.errors(), 0)


if __name__ == "__main__":
    support.main()
