#!/usr/bin/env python3
"""Runs the benchmarks and reports: run.sh when all is built.

Responsible for the order of runs, for what is kept of each, and for the words. What is measured says
plan.py, how a run is played tests/lab/scenario.py.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

PROJECT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests"))
from lab import arms, reaper, scenario  # noqa: E402
from lab.commands import LabError, run  # noqa: E402
from lab.host import Programs  # noqa: E402
from lab.network import Network  # noqa: E402
import plan  # noqa: E402
import report  # noqa: E402

_FLOORS_PORT = 7711


def play(one, programs):
    """One run: its figures for the report. LabError if it could not be played to its end."""
    folder = tempfile.mkdtemp(prefix="postcopy-")
    reaper.note("folder", folder)
    try:
        outcome = scenario.run(plan.scenario_of(one.point), programs, folder,
                               arm=arms.ARMS[one.arm])
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        reaper.forget("folder", folder)
    service = [(round(window.start - outcome.marks.command, 3), window.count)
               for window in outcome.windows]
    return {"load": one.point.load, "link": one.point.link, "run": one.number,
            **outcome.figures, "complaints": outcome.complaints, "service": service}


def measure_floors(programs):
    """What the network between two hosts and this machine can do at best: floors.cc. LabError."""
    program = programs.daemon.parents[1] / "perf/floors"
    with Network() as network:
        address = f"{network.address('b')}:{_FLOORS_PORT}"
        with subprocess.Popen(network.exec_argv("b", [program, "serve", address]), text=True,
                              stdout=subprocess.PIPE) as server:
            try:
                if server.stdout.readline() != "listening\n":
                    raise LabError(f"measure floors: nobody listens at {address}")
                text = run(network.exec_argv("a", [program, address]), what="measure floors",
                           timeout_s=120)
            finally:
                server.kill()
    return json.loads(text)


def collect(wanted, programs, results_folder):
    """Plays the runs that have no result yet; all results."""
    results = []
    for number, one in enumerate(wanted, 1):
        kept = results_folder / f"{one.name}.json"
        began = time.monotonic()
        if not kept.exists():
            try:
                result = play(one, programs)
            except LabError as error:
                print(f"[{number}/{len(wanted)}] {one.name}: did not finish: {error}", flush=True)
                continue
            fresh = kept.with_suffix(".new")
            fresh.write_text(json.dumps(result) + "\n")
            fresh.rename(kept)
        result = json.loads(kept.read_text())
        results.append(result)
        seen = (f"lost service {result['lost_service_ms']:.0f} ms, " if "lost_service_ms" in result else
                f"waited {result['touch_waited_ms']:.0f} ms, " if "touch_waits" in result else "")
        print(f"[{number}/{len(wanted)}] {one.name}: downtime {result['downtime_ms']:.0f} ms, {seen}"
              f"total {result['total_ms'] / 1000:.1f} s, "
              f"{result['faults']} faults{'' if result['verified'] else ', MEMORY NOT INTACT'} "
              f"({time.monotonic() - began:.0f} s)", flush=True)
    return results


def arguments_of():
    parser = argparse.ArgumentParser(description="Compare relocations with QEMU's own migration.")
    parser.add_argument("--quick", action="store_true",
                        help="web load, two links, three arms, three runs: about 10 minutes")
    parser.add_argument("--arm", action="append", choices=plan.ARMS, help="only this arm; repeatable")
    parser.add_argument("--load", action="append", choices=plan.LOADS, help="only this load")
    parser.add_argument("--link", action="append", choices=list(plan.LINKS_MBIT),
                        help="only this link; repeatable")
    parser.add_argument("--runs", type=int, metavar="N", help="N runs an arm and point")
    parser.add_argument("--json", metavar="FILE", help="write all runs to FILE, a list")
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier runs")
    parser.add_argument("--folder", default=PROJECT / "build/perf/results", type=pathlib.Path,
                        help="where results and pictures are kept (default: %(default)s)")
    return parser.parse_args()


def main():
    asked = arguments_of()
    wanted = plan.quick() if asked.quick else plan.full()
    if asked.arm or asked.load or asked.link or asked.runs:
        points = {run.point: None for run in wanted
                  if run.point.link in (asked.link or plan.LINKS_MBIT)
                  and run.point.load in (asked.load or plan.LOADS)}
        names = dict.fromkeys(run.arm for run in wanted if run.arm in (asked.arm or plan.ARMS))
        wanted = plan.runs(points, names, asked.runs or (plan.RUNS_QUICK if asked.quick else None))
    folder = asked.folder / ("quick" if asked.quick else "full")
    if asked.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    left = [run for run in wanted if not (folder / f"{run.name}.json").exists()]
    print(f"{len(wanted)} runs, {len(left)} to make, about {plan.estimate_s(left) / 60:.0f} minutes",
          flush=True)
    os.environ["POSTCOPY_LAB_QEMU"] = plan.QEMU
    programs = Programs.built()
    floors = measure_floors(programs)
    print(f"{report.floors_text(floors)}\n", flush=True)
    results = collect(wanted, programs, folder)
    points = list(dict.fromkeys(run.point for run in wanted))
    print(f"\n{report.table(results, points)}\n{report.multiples(results, points, floors)}")
    for picture in report.write_pictures(results, points, folder):
        print(f"picture: {picture}")
    if asked.json:
        pathlib.Path(asked.json).write_text(json.dumps(results, indent=1) + "\n")
    return 0 if len(results) == len(wanted) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LabError, OSError) as error:
        sys.exit(f"perf: {error}")
    except KeyboardInterrupt:
        print("perf: interrupted; the same command goes on where it was", file=sys.stderr)
        sys.exit(130)
