#!/usr/bin/env python3
"""A destination that was asked for traces writes what the guest has waited for, and nothing that
differs from what it tells otherwise."""

import pathlib

import support
from lab.commands import LabError
from support import OK, VM, await_that

_PAGE_BYTES = 4096
_BULK_DELAY_S = 2


class Trace(support.StageTest):
    def restart_b(self, folder, *faults):
        """The destination's daemon anew, with this trace folder and these fault plans."""
        host = self.stage.hosts["b"]
        host.stop()
        host.options, host.faults = ["--trace-folder", folder], list(faults)
        host.start()

    def trace_of_a_relocation(self, *faults):
        """Relocates a guest: the command's answer and the trace's lines, as lists of words."""
        folder = self.stage.folder / f"traces{len(faults)}"
        self.restart_b(folder, *faults)
        with self.stage.vm("a") as a, self.stage.vm("b", incoming=True):
            a.wait_ready()
            ended = self.stage.relocate()
        self.assertEqual(ended.code, OK, ended.message)
        path, = await_that("the trace is written", lambda: list(folder.glob("*.trace")))
        self.assertRegex(path.name, rf"^{VM}-[0-9a-f]{{32}}\.trace$")
        return ended.answer, [line.split(" ") for line in path.read_text().splitlines()]

    def check(self, answer, lines):
        faults = [words for words in lines if words[0] == "fault"]
        asked = [words for words in faults if words[4] == "asked"]
        data = [int(words[3]) for words in lines if words[0] == "data"]
        times = [int(words[1]) for words in faults]
        self.assertEqual(lines[0], ["postcopy-trace", "1"])
        self.assertEqual(lines[-1], ["end"])
        self.assertEqual(len(asked), answer["faults"])
        self.assertEqual(sum(data) * _PAGE_BYTES, answer["data_bytes"])
        self.assertEqual(times, sorted(times))
        resume, = (int(words[1]) for words in lines if words[0] == "resume")
        waits = sorted(int(words[5]) / 1000 for words in asked)
        self.assertAlmostEqual(waits[-1], answer["fault_max_us"], delta=1)
        return resume, asked

    def test_a_trace_has_each_fault_that_was_counted(self):
        _, asked = self.check(*self.trace_of_a_relocation())
        print(f"{len(asked)} faults")

    def test_a_delayed_bulk_leaves_the_guest_to_ask_for_all_that_it_touches(self):
        answer, lines = self.trace_of_a_relocation(f"delay-bulk={_BULK_DELAY_S}")
        resume, asked = self.check(answer, lines)
        before = [words for words in asked if 0 <= int(words[1]) - resume < _BULK_DELAY_S * 1e9]
        print(f"{len(asked)} faults, {len(before)} of them in the {_BULK_DELAY_S} s without bulk")
        self.assertGreater(len(before), 0)
        self.assertGreaterEqual(answer["after_switch_ms"], 1000 * _BULK_DELAY_S)

    def test_a_folder_that_cannot_be_written_keeps_the_daemon_from_starting(self):
        blocked = pathlib.Path(self.stage.folder) / "no-folder"
        blocked.write_text("")
        with self.assertRaisesRegex(LabError, f"trace folder: make directory {blocked}/x"):
            self.restart_b(blocked / "x")


if __name__ == "__main__":
    support.main()
