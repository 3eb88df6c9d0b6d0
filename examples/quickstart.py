#!/usr/bin/env python3
"""Plays the lab's scenario and tells a person what happened: quickstart.sh when all is built.

Responsible for the words only: what is played says tests/lab/scenario.py, what the figures mean
tests/lab/verdict.py.
"""

import argparse
import json
import pathlib
import shutil
import statistics
import sys
import tempfile
import time

PROJECT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests"))
from lab import reaper, scenario, timeline
from lab.commands import LabError
from lab.host import Programs

SUMMED = ("failed_requests", "lost_connections")


def figures_text(figures):
    """The figures for a person, a line each."""
    mib = 1 << 20
    rows = [
        ("downtime", f"{figures['downtime_ms']:.1f} ms", "from STOP on host a to RESUME on host b"),
        ("demand faults", f"{figures['faults']:.0f}",
         f"p50 {figures['fault_p50_us']:.0f} us, p99 {figures['fault_p99_us']:.0f} us"),
        ("bytes moved", f"{figures['bytes_moved'] / mib:.0f} MiB",
         f"by host a; the guest has {figures['ram_bytes'] / mib:.0f} MiB of RAM"),
        ("total time", f"{figures['total_ms'] / 1000:.2f} s",
         f"from the command to the commit; {figures['after_switch_ms'] / 1000:.2f} s of it after "
         "the switch"),
        ("lost service", f"{figures['lost_service_ms']:.0f} ms", "as time without any"),
        ("longest gap", f"{figures['longest_gap_ms']:.0f} ms", "without a finished request"),
        ("failed requests", f"{figures['failed_requests']}", ""),
        ("lost connections", f"{figures['lost_connections']}", ""),
    ]
    return "\n".join(f"  {name:<17}{value:>10}  {note}".rstrip() for name, value, note in rows)


def verdict_text(outcome):
    figures = outcome.figures
    if figures["verified"]:
        lines = [f"memory is intact: {figures['files_checked']} files have their SHA-256, the "
                 "guest's checker finished two full passes without error"]
    else:
        lines = ["MEMORY IS NOT INTACT"]
    return "\n".join(lines + [f"  {complaint}" for complaint in outcome.complaints])


def medians(runs):
    """The figures of several runs as one: medians of numbers, sums of losses, all verified."""
    merged = dict(runs[0])
    for name, first in runs[0].items():
        values = [figures[name] for figures in runs]
        if isinstance(first, bool):
            merged[name] = all(values)
        elif isinstance(first, (int, float)):
            merged[name] = sum(values) if name in SUMMED else statistics.median(values)
    return merged | {"runs": runs}


def play(plan, programs):
    """One run, told on standard output. Its logs are kept, and named, if something went wrong that
    was not asked for."""
    began = time.monotonic()
    folder = tempfile.mkdtemp(prefix="postcopy-")
    reaper.note("folder", folder)
    keep = False
    try:
        outcome = scenario.run(plan, programs, folder, lambda text: print(
            f"[{time.monotonic() - began:5.1f} s] {text}", flush=True))
        keep = not outcome.ok and not plan.source_faults
    except LabError:
        keep = True
        raise
    finally:
        if keep:
            print(f"quickstart: the logs of both hosts are in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
        reaper.forget("folder", folder)
    width = shutil.get_terminal_size((100, 24)).columns
    print(f"[{time.monotonic() - began:5.1f} s] done\n")
    print(timeline.render(outcome.windows, outcome.marks, outcome.base, max(60, min(width, 100))))
    print(f"\n{figures_text(outcome.figures)}\n\n{verdict_text(outcome)}", flush=True)
    return outcome


def main():
    parser = argparse.ArgumentParser(description="Relocate a guest under load and show it.")
    parser.add_argument("--json", metavar="FILE", help="write the figures to FILE as JSON, too")
    parser.add_argument("--corrupt-one-byte", action="store_true",
                        help="flip one byte of the guest's memory on its way")
    parser.add_argument("--runs", metavar="N", type=int, default=1,
                        help="do it N times, and give the medians")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error("--runs: at least 1")
    if arguments.json and not pathlib.Path(arguments.json).absolute().parent.is_dir():
        parser.error(f"--json {arguments.json}: its folder does not exist")
    plan = scenario.Plan(source_faults=("corrupt-one-byte",) if arguments.corrupt_one_byte else ())
    programs = Programs.built()
    outcomes = []
    for number in range(1, arguments.runs + 1):
        if arguments.runs > 1:
            print(f"\n=== run {number} of {arguments.runs}")
        outcomes.append(play(plan, programs))
    figures = outcomes[0].figures
    if arguments.runs > 1:
        figures = medians([outcome.figures for outcome in outcomes])
        print(f"\n=== medians of {arguments.runs} runs\n\n{figures_text(figures)}\n\n"
              f"memory was intact in {sum(o.figures['verified'] for o in outcomes)} of "
              f"{arguments.runs}")
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if all(outcome.ok for outcome in outcomes) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LabError, OSError) as error:
        sys.exit(f"quickstart: {error}")
    except KeyboardInterrupt:
        print("quickstart: interrupted, all that it had started is gone", file=sys.stderr)
        sys.exit(130)
