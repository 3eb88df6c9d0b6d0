#!/usr/bin/env python3
"""Runs the benchmarks and reports: run.sh when all is built.

Responsible for the order of runs, for what is kept of each, and for the words. What is measured says
plan.py, how a run is played tests/lab/scenario.py.
"""

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

PROJECT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests"))
from lab import arms, fault_trace, reaper, scenario  # noqa: E402
from lab.commands import LabError, NoEnd, run  # noqa: E402
from lab.host import Programs  # noqa: E402
from lab.network import Network  # noqa: E402
import pictures  # noqa: E402
import plan  # noqa: E402
import report  # noqa: E402

_FLOORS_PORT = 7711
_KEPT_ONLY = ("service", "waits_us")  # of a run, beside what --json gives: what pictures are made of


def play(one, programs, guests, keep_trace):
    """One run: its figures for the report; its guest goes on from one in the folder `guests`, its trace
    goes to the path `keep_trace` unless that is None. LabError if it could not be played."""
    folder = tempfile.mkdtemp(prefix="postcopy-")
    reaper.note("folder", folder)
    result = {**dataclasses.asdict(one.point), "arm": one.arm, "run": one.number,
              "date": datetime.date.today().isoformat(), "commit": commit()}
    try:
        outcome = scenario.run(plan.scenario_of(one.point, guests), programs, folder,
                               arm=arms.ARMS[one.arm])
        waits_us = fault_trace.waits_us(outcome.trace) if outcome.trace else []
        if outcome.trace and keep_trace:
            shutil.copyfile(outcome.trace, keep_trace)
    except NoEnd as error:
        return {**result, "unfinished": str(error)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        reaper.forget("folder", folder)
    service = [(round(window.start - outcome.marks.command, 3), window.count)
               for window in outcome.windows]
    return {**result, **outcome.figures, "complaints": outcome.complaints, "service": service,
            "waits_us": waits_us}


def commit():
    """That of this project; "unknown" outside of its repository."""
    told = subprocess.run(["git", "-C", PROJECT, "describe", "--always", "--dirty"], text=True,
                          capture_output=True, check=False).stdout.strip()
    return told or "unknown"


def floors_of(programs, folder, anew):
    """The floors: those kept in `folder` unless `anew`. LabError."""
    kept = folder / "floors.json"
    if anew or not kept.exists():
        kept.write_text(json.dumps(measure_floors(programs)) + "\n")
    return json.loads(kept.read_text())


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


def collect(wanted, programs, folder, traces):
    """Plays the runs that have no result in `folder` yet, and keeps their traces if `traces`; all
    results."""
    results = []
    left_s = plan.estimate_s(left_of(wanted, folder))
    for number, one in enumerate(wanted, 1):
        kept = folder / f"{one.name}.json"
        if not kept.exists():
            print(f"[{number}/{len(wanted)}, {left_s / 60:.0f} min left] {one.name} ...", flush=True)
            left_s -= plan.estimate_s([one])
            began = time.monotonic()
            try:
                result = play(one, programs, folder / "guests",
                              folder / f"{one.name}.trace" if traces else None)
            except LabError as error:
                print(f"  could not be played: {error}", flush=True)
                continue
            fresh = kept.with_suffix(".new")
            fresh.write_text(json.dumps(result) + "\n")
            fresh.rename(kept)
            print(f"  {run_text(result)} ({time.monotonic() - began:.0f} s)", flush=True)
        results.append(json.loads(kept.read_text()))
    shutil.rmtree(folder / "guests", ignore_errors=True)  # gigabytes
    return results


def left_of(wanted, folder):
    """Those of the runs that have no result in `folder` yet."""
    return [one for one in wanted if not (folder / f"{one.name}.json").exists()]


def run_text(result):
    """A run in a line."""
    if "unfinished" in result:
        return f"NOT FINISHED: {result['unfinished']}"
    seen = ""
    if result.get("lost_service_ms") is not None:
        seen = f"lost service {result['lost_service_ms']:.0f} ms, "
    elif "pages_good_share" in result:
        seen = f"{100 * result['pages_good_share']:.1f} % of pages in time, "
    elif "touch_waits" in result:
        seen = f"waited {result['touch_waited_ms']:.0f} ms, "
    wrong = "" if result["verified"] else f", NOT INTACT: {'; '.join(result['complaints'])}"
    return (f"downtime {result['downtime_ms']:.0f} ms, {seen}total {result['total_ms'] / 1000:.1f} s, "
            f"{result['faults']} faults{wrong}")


def machine_text(results):
    """Where and with what the results were measured, a line each."""
    def lines_of(path, pattern):
        return re.findall(pattern, pathlib.Path(path).read_text(), re.M)
    processors = lines_of("/proc/cpuinfo", r"^model name\s*: (.*)$")
    memory_kib = int(lines_of("/proc/meminfo", r"^MemTotal:\s+(\d+)")[0])
    dates, commits, qemus = (", ".join(sorted({result[name] for result in results if name in result}))
                             for name in ("date", "commit", "qemu"))
    return "\n".join([
        f"- Date: {dates}",
        f"- Machine: {len(processors)} x {processors[0] if processors else platform.machine()}, "
        f"{memory_kib / 2**20:.0f} GiB of memory, Linux {platform.release()}",
        f"- QEMU {qemus} (TCG), libpostcopy {commits}",
        f"- Command: `{shlex.join(['perf/run.sh', *sys.argv[1:]])}`"])


def arguments_of():
    parser = argparse.ArgumentParser(description="Compare relocations with QEMU's own migration.")
    parser.add_argument("--quick", action="store_true",
                        help="web load, two links, three arms, three runs: about 10 minutes")
    parser.add_argument("--arm", action="append", choices=plan.ARMS, help="only this arm; repeatable")
    parser.add_argument("--load", action="append", choices=plan.LOADS,
                        help="only this load; repeatable")
    parser.add_argument("--link", action="append", choices=list(plan.LINKS),
                        help="only this link; repeatable")
    parser.add_argument("--runs", type=int, metavar="N", help="N runs an arm and point")
    parser.add_argument("--json", metavar="FILE", help="write all runs to FILE, a list")
    parser.add_argument("--against", metavar="FILE", type=pathlib.Path,
                        help="say which arms FILE, of an earlier --json, has in opposite order")
    parser.add_argument("--fresh", action="store_true", help="forget the results of earlier runs")
    parser.add_argument("--traces", action="store_true",
                        help="keep each run's trace of faults beside its result, for replay")
    parser.add_argument("--folder", default=PROJECT / "build/perf/results", type=pathlib.Path,
                        help="where results and pictures are kept (default: %(default)s)")
    asked = parser.parse_args()
    if asked.runs is not None and asked.runs < 1:
        parser.error("--runs: at least 1")
    if asked.json and not pathlib.Path(asked.json).absolute().parent.is_dir():
        parser.error(f"--json {asked.json}: its folder does not exist")
    if asked.against and not asked.against.is_file():
        parser.error(f"--against {asked.against}: no such file")
    return asked


def runs_of(asked):
    """The runs that the arguments ask for."""
    points = plan.chosen(plan.quick() if asked.quick else plan.full(), asked.load, asked.link)
    every = plan.QUICK_ARMS if asked.quick else plan.ARMS
    return plan.runs(points, asked.arm or every,
                     asked.runs or (plan.RUNS_QUICK if asked.quick else None))


def main():
    asked = arguments_of()
    wanted = runs_of(asked)
    folder = asked.folder / ("quick" if asked.quick else "full")
    if asked.fresh:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    left = left_of(wanted, folder)
    print(f"{len(wanted)} runs, {len(left)} to make, about {plan.estimate_s(left) / 60:.0f} minutes",
          flush=True)
    os.environ["POSTCOPY_LAB_QEMU"] = plan.QEMU
    programs = Programs.built()
    floors = floors_of(programs, folder, anew=bool(left))
    print(f"{report.floors_text(floors)}\n", flush=True)
    results = collect(wanted, programs, folder, asked.traces)
    points = list(dict.fromkeys(one.point for one in wanted))
    said = [machine_text(results), report.floors_text(floors), report.table(results, points),
            report.multiples(results, points, floors)]
    (folder / "report.md").write_text("\n\n".join(said))
    print("\n" + "\n".join(said[2:]))
    for picture in pictures.write_all(results, points, folder):
        print(f"picture: {picture}")
    if asked.json:
        pathlib.Path(asked.json).write_text(json.dumps(
            [{name: value for name, value in result.items() if name not in _KEPT_ONLY}
             for result in results], indent=1) + "\n")
    if asked.against:
        earlier = json.loads(asked.against.read_text())
        found = report.contradictions(earlier, results, points)
        print("\n".join(["in opposite order:", *found]) if found else
              f"no two arms are in opposite order in {asked.against}")
    return 0 if len(results) == len(wanted) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LabError, OSError, ValueError) as error:
        sys.exit(f"perf: {error}")
    except KeyboardInterrupt:
        print("perf: interrupted; the same command goes on where it was", file=sys.stderr)
        sys.exit(130)
