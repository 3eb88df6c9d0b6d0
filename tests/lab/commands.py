"""Runs a short command, or waits for something, and turns its failure into one sentence.

Not responsible for long-running processes (qemu.py and load.py own theirs).
"""

import subprocess
import time


class LabError(Exception):
    """Something the lab needs did not work. The text says operation, object and cause."""


class NoEnd(LabError):
    """Something took longer than it may."""


def run(argv, *, what=None, timeout_s=60, stdin=None, cwd=None, env=None):
    """Runs `argv` to its end and returns its standard output as text.

    `what` is the operation and object for the error text; default: the command itself. Raises
    LabError when the command is missing or exits non-zero, NoEnd when it takes longer than
    `timeout_s`.
    """
    what = what or " ".join(argv)
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, cwd=cwd, env=env,
                              timeout=timeout_s, check=False)
    except FileNotFoundError:
        raise LabError(f"{what}: {argv[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise NoEnd(f"{what}: no end after {timeout_s} s") from None
    if done.returncode != 0:
        cause = (done.stderr.strip() or done.stdout.strip()).replace("\n", "; ")
        raise LabError(f"{what}: {cause or 'exit status'} ({done.returncode})")
    return done.stdout


def await_that(what, condition, timeout_s=30, every_s=0.02):
    """Returns the first true value of `condition()`; LabError naming `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise LabError(f"wait until {what}: not so after {timeout_s} s")
        time.sleep(every_s)
    return value
