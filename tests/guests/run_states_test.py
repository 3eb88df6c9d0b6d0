#!/usr/bin/env python3
"""Plays the run states of the table (table.py) whose label is the first argument; then, as for unittest,
names of single ones. Without arguments: all."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "vm"))
import support  # noqa: E402
import run_states  # noqa: E402
from lab import qemu  # noqa: E402
from rig import MEMORY_MIB, Rig  # noqa: E402
from table import CI, NIGHTLY, RUN_STATE_CELL, RUN_STATES  # noqa: E402


class RunStates(support.StageTest):
    config = qemu.Config(memory_mib=MEMORY_MIB, reboots=True)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.saved = cls.enterClassContext(Rig(None, cls.stage, RUN_STATE_CELL))
        cls.saved.save()

    def play(self, row):
        with Rig(self, self.stage, RUN_STATE_CELL, saved=self.saved) as rig:
            run_states.play(rig, row)


def add(label):
    """Makes a test of each row with that label; None: of all."""
    for row in RUN_STATES:
        if label is None or row.label == label:
            setattr(RunStates, f"test_{row.name}", lambda self, row=row: self.play(row))


if __name__ == "__main__":
    chosen = sys.argv.pop(1) if len(sys.argv) > 1 and sys.argv[1] in (CI, NIGHTLY) else None
    add(chosen)
    support.main()
