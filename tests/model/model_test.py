#!/usr/bin/env python3
"""The model of the hand-over (docs/model/handover.pml) holds, all of it is reached, and each bug that can be seeded in it is
found: the daemons never run a VM twice, and no session is stuck while both ends live and can talk.

Exit code 77: spin is not here.
"""

import concurrent.futures
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

_MODEL = pathlib.Path(__file__).resolve().parents[2] / "docs/model/handover.pml"
# What each seeded bug breaks: an assertion, or that none is stuck.
_BROKEN = "assertion violated"
_STUCK = "acceptance cycle"
_BUGS = {
    "BUG_RESUME_WITHOUT_NEVER": _BROKEN,
    "BUG_FORGET_ARRIVED": _BROKEN,
    "BUG_CONT_BEFORE_OWNER": _BROKEN,
    "BUG_ABORTED_BEFORE_NEVER": _BROKEN,
    "BUG_TRUST_WHAT_IS_READ": _BROKEN,
    "BUG_NOT_ARMED_IS_ALL_HERE": _BROKEN,
    "BUG_NO_FENCE": _BROKEN,
    "BUG_FENCE_WITHOUT_A_LOOK": _BROKEN,
    "BUG_NEVER_WITHOUT_AN_ANSWER": _BROKEN,
    "BUG_NEVER_AFTER_A_RESUME": _BROKEN,
    "BUG_NEVER_BEFORE_DEAD": _BROKEN,
    "BUG_NEVER_WITHOUT_THE_SOURCE": _BROKEN,
    "BUG_UNRECORDED_BEFORE_DEAD": _BROKEN,
    "BUG_TAKEN_BACK_FROM_THE_LIVING": _BROKEN,
    "BUG_UNRECORDED_IS_ABORTED": _STUCK,
    "BUG_ROLLED_BACK_IS_THE_END": _STUCK,
    "BUG_OWNER_IS_NOT_ASKED_ABOUT": _STUCK,
    "BUG_OWNER_IS_THE_LAST_WORD": _STUCK,
    "BUG_COMMITTED_IS_THE_END": _STUCK,
    "BUG_ACKNOWLEDGE_WHAT_IS_READ": _STUCK,
    "BUG_UNREGISTERED_IS_DEAD": _STUCK,
    "BUG_FORGET_NEVER": _STUCK,
    "BUG_NO_RECORD_IS_NO_ANSWER": _STUCK,
}
# Steps of a path that the search may go before it says that it has not seen all.
_DEPTH = 1_000_000


def run(command, folder):
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def search(macros, compiler_options, options):
    """What the checker prints of one variant of the model."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(_MODEL, folder)
        run(["spin", "-a", *macros, _MODEL.name], folder)
        # No partial-order reduction: every step touches what others see.
        run(["cc", "-w", "-DNOREDUCE", *compiler_options, "-o", "pan", "pan.c"], folder)
        return run(["./pan", f"-m{_DEPTH}", "-w22", *options], folder)


def figures(report):
    states = re.search(r"(\d+) states, stored", report)
    depth = re.search(r"depth reached (\d+)", report)
    errors = re.search(r"errors: (\d+)", report)
    if not (states and depth and errors) or "max search depth too small" in report:
        raise RuntimeError(f"the search did not end:\n{report}")
    return int(errors[1]), f"{int(states[1]):,} states, depth {int(depth[1]):,}"


def check_model():
    """Returns (whether it holds and is reached as a whole, words)."""
    began = time.monotonic()
    # Assertions and, with weak fairness, that none is stuck: one search.
    report = search([], ["-O1", "-DNFAIR=3"], ["-a", "-f"])
    errors, size = figures(report)
    unreached = [line.strip() for line in report.splitlines()
                 if re.search(r", state \d+, ", line) and '"-end-"' not in line]
    words = f"the model: {errors} errors, {size}, {time.monotonic() - began:.1f} s"
    if "Search not completed" in report:
        words += "; the search was not completed\n" + report
        return False, words
    return errors == 0 and not unreached, "\n  unreached: ".join([words, *unreached])


def check_bug(bug):
    began = time.monotonic()
    macros = [f"-D{bug}", "-DNOTHING_LATE"]
    if _BUGS[bug] == _BROKEN:
        report = search(macros, ["-O0", "-DSAFETY", "-DNOCLAIM"], ["-n"])
    else:
        report = search(macros, ["-O0", "-DNFAIR=3"], ["-a", "-f", "-n"])
    _, size = figures(report)
    found = re.search(r"pan:1: (.*) \(at depth (\d+)\)", report)
    words = f"{bug}: {found[1] + ' at depth ' + found[2] if found else 'NOT FOUND'}, {size}"
    return bool(found and _BUGS[bug] in found[1]), f"{words}, {time.monotonic() - began:.1f} s"


def main():
    if shutil.which("spin") is None:
        print("spin is not installed")
        return 77
    seeded = set(re.findall(r"\bBUG_\w+", _MODEL.read_text()))
    if seeded != set(_BUGS):
        print(f"bugs of the model that this test does not know, or the reverse: {seeded ^ set(_BUGS)}")
        return 1
    passed = True
    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
        results = [pool.submit(check_model), *(pool.submit(check_bug, bug) for bug in _BUGS)]
        for result in results:
            held, words = result.result()
            print("ok    " if held else "FAILED", words, flush=True)
            passed = passed and held
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
