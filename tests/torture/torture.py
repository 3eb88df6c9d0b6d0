#!/usr/bin/env python3
"""Plays a torture and tells a person what came of it: run.sh when all is built.

Responsible for the words, the files and the exit code: what is played says player.py.
"""

import argparse
import json
import pathlib
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from lab import reaper  # noqa: E402
from lab.commands import LabError  # noqa: E402
from lab.host import Programs  # noqa: E402
from lab.two_hosts import TwoHosts, lacks  # noqa: E402
import player  # noqa: E402
from record import Record  # noqa: E402
from schedule import KINDS, RESETS, Schedule  # noqa: E402

_FAILED, _SKIPPED = 1, 77


def kinds(text):
    """The kinds in a list with commas. argparse's error if there is no such kind."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in KINDS:
            raise argparse.ArgumentTypeError(f"there is no kind {name}; there are {', '.join(KINDS)}")
    return names


def arguments_of(words):
    """The command line, or argparse's exit with 2."""
    parser = argparse.ArgumentParser(prog="torture", description="Relocate a VM to and fro under faults.")
    parser.add_argument("--seconds", metavar="N", type=int, default=180)
    parser.add_argument("--seed", metavar="S", type=int, default=1)
    parser.add_argument("--without", metavar="KIND[,KIND]", type=kinds, action="extend", default=[])
    parser.add_argument("--json", metavar="FILE", type=pathlib.Path)
    arguments = parser.parse_args(words)
    if arguments.seconds < 1:
        parser.error("--seconds: at least 1")
    if arguments.json and not arguments.json.absolute().parent.is_dir():
        parser.error(f"--json {arguments.json}: its folder does not exist")
    return arguments


def play(arguments, record, folder):
    """Plays it on a stage of its own, with logs in `folder`. LabError: it could not be played."""
    with TwoHosts(Programs.built(), folder, player.CONFIG) as stage:
        without = set(arguments.without)
        if not stage.network.can_reset():
            without.add(RESETS)
            record.notes.append("no resets: this kernel cannot end others' connections")
        player.Player(stage, Schedule(arguments.seed, without), record, without,
                      say=lambda text: print(text, flush=True)).play(arguments.seconds)


def main():
    arguments = arguments_of(sys.argv[1:])
    if missing := lacks("ss"):
        print(f"skipped: missing: {missing}")
        return _SKIPPED
    record = Record(arguments.seed)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="torture-"))
    reaper.note("folder", folder)
    keep = True
    try:
        play(arguments, record, folder)
        keep = not record.ok
    except KeyboardInterrupt:
        keep = False
        raise
    finally:
        if keep:
            (folder / "injections.log").write_text(record.log())
        else:
            shutil.rmtree(folder, ignore_errors=True)
        reaper.forget("folder", folder)
        if keep:
            print(f"injections of seed {arguments.seed}:\n{record.log()}the logs of both hosts are in "
                  f"{folder}", flush=True)
    for note in record.notes:
        print(f"note: {note}")
    for complaint in record.complaints:
        print(f"LOST OR WRONG: {complaint}")
    if arguments.json:
        figures = record.figures() | {"logs": str(folder) if keep else None}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    print(record.line(), flush=True)
    return 0 if record.ok else _FAILED


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LabError, OSError) as error:
        print(f"torture: could not be played: {error}", file=sys.stderr)
        sys.exit(_FAILED)
    except KeyboardInterrupt:
        print("torture: interrupted, all that it had started is gone", file=sys.stderr)
        sys.exit(130)
