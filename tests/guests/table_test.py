#!/usr/bin/env python3
"""The table of guests that are tried is whole, and docs/operations.md shows it. `--write` writes it there."""

import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(pathlib.Path(__file__).resolve().parents[1] / "vm"))
import happenings  # noqa: E402
import run_states  # noqa: E402
from lab import devices  # noqa: E402
from lab.postcopyctl import MISFIT, NO_SUCH_VM, OK, ROLLED_BACK  # noqa: E402
from table import CELLS, CI, NIGHTLY, RUN_STATES  # noqa: E402

DOCUMENT = pathlib.Path(__file__).resolve().parents[2] / "docs/operations.md"
BEGIN, END = "<!-- tests/guests/table.py -->\n", "<!-- end -->\n"
_WHERE = {CI: "CI", NIGHTLY: "every night"}
_OUTCOME = {MISFIT: "refused, stays as it is", NO_SUCH_VM: "there is no such VM any more",
            ROLLED_BACK: "rolled back, stays as it is"}


def _row(*columns):
    return f"| {' | '.join(columns)} |\n"


def cells_as_markdown():
    text = _row("machine", "disks", "devices", "what happens", "tried in") + _row(*["---"] * 5)
    for cell in CELLS:
        text += _row(cell.machine, "; ".join(map(str, cell.disks)) or "–", ", ".join(cell.devices) or "–",
                     cell.happens, _WHERE[cell.label] + (f", QEMU {cell.only}" if cell.only else ""))
    return text


def _becomes(row):
    if not row.at and row.code != NO_SUCH_VM:
        return "has ended, in order" + ("" if row.code == OK else ": rolled back")
    return "moves" if row.code == OK else _OUTCOME[row.code]


def run_states_as_markdown():
    text = _row("the guest", *run_states.MOMENTS) + _row(*["---"] * (1 + len(run_states.MOMENTS)))
    for event in run_states.EVENTS:
        rows = {row.moment: row for row in RUN_STATES if row.event == event}
        text += _row(event, *(_becomes(rows[moment]) if moment in rows else "–"
                              for moment in run_states.MOMENTS))
    return text


def markdown():
    return f"{BEGIN}\n{cells_as_markdown()}\n{run_states_as_markdown()}\n{END}"


class Table(unittest.TestCase):
    def test_all_that_a_cell_names_is_there(self):
        for cell in CELLS:
            self.assertIn(cell.machine, devices.MACHINES)
            self.assertIn(cell.happens, happenings.HAPPENINGS)
            self.assertIn(cell.label, _WHERE)
            for name in cell.devices:
                self.assertIn(name, devices.DEVICES)
        for row in RUN_STATES:
            self.assertIn(row.event, run_states.EVENTS)
            self.assertIn(row.moment, run_states.MOMENTS)
            self.assertIn(row.label, _WHERE)

    def test_no_cell_hides_another_of_its_name(self):
        for rows in (CELLS, RUN_STATES):
            names = [row.name for row in rows]
            self.assertEqual(len(names), len(set(names)))

    def test_every_device_and_happening_is_tried_somewhere(self):
        self.assertEqual({name for cell in CELLS for name in cell.devices} | {"pvpanic", "watchdog"},
                         set(devices.DEVICES))
        self.assertEqual({cell.happens for cell in CELLS}, set(happenings.HAPPENINGS))
        self.assertEqual({cell.machine for cell in CELLS}, set(devices.MACHINES))
        self.assertEqual({row.event for row in RUN_STATES}, set(run_states.EVENTS))
        self.assertEqual({row.moment for row in RUN_STATES}, set(run_states.MOMENTS))

    def test_both_labels_have_cells(self):
        self.assertEqual({cell.label for cell in CELLS}, {CI, NIGHTLY})
        self.assertEqual({row.label for row in RUN_STATES}, {CI, NIGHTLY})

    def test_the_operations_guide_shows_it(self):
        self.assertIn(markdown(), DOCUMENT.read_text(), "tests/guests/table_test.py --write brings it there")


def write():
    before, rest = DOCUMENT.read_text().split(BEGIN)
    DOCUMENT.write_text(before + markdown() + rest.split(END)[1])


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        write()
    else:
        unittest.main()
