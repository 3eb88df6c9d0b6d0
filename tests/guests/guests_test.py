#!/usr/bin/env python3
"""Plays the cells of the table (table.py) whose label is the first argument; then, as for unittest, names
of single ones. Without arguments: all."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "vm"))
import support  # noqa: E402
from happenings import HAPPENINGS  # noqa: E402
from lab import qemu  # noqa: E402
from rig import MEMORY_MIB, Rig  # noqa: E402
from table import CELLS, CI, NIGHTLY  # noqa: E402


class Player(support.StageTest):
    config = qemu.Config(memory_mib=MEMORY_MIB)

    def play(self, cell):
        if cell.only and cell.only != self.stage.qemus["a"].name:
            self.skipTest(f"only for QEMU {cell.only}")
        with Rig(self, self.stage, cell) as rig:
            HAPPENINGS[cell.happens](rig)


class Guests(Player):
    pass


class GuestsOnIPv6Hosts(Player):
    ipv6 = True


class GuestsOnFilteredHosts(Player):
    """On a network of its own, since the filter stays."""


_STAGES = {"hosts with IPv6 only": GuestsOnIPv6Hosts,
           "hosts that filter all but ports 7700 and 7701": GuestsOnFilteredHosts}


def add(label):
    """Makes a test of each cell with that label; None: of all."""
    for cell in CELLS:
        if label is None or cell.label == label:
            setattr(_STAGES.get(cell.happens, Guests), f"test_{cell.name}",
                    lambda self, cell=cell: self.play(cell))


if __name__ == "__main__":
    chosen = sys.argv.pop(1) if len(sys.argv) > 1 and sys.argv[1] in (CI, NIGHTLY) else None
    add(chosen)
    support.main()
