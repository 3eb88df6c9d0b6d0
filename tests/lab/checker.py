"""Asks the guest's memory checker how it fares, from the client's namespace.

The checker itself is guest/memcheck.c.
"""

import dataclasses
import json
import time

from .commands import LabError, run


@dataclasses.dataclass(frozen=True)
class Status:
    passes: int                # finished since the guest's boot
    errors: int                # wrong words found since the guest's boot
    mib: int
    first_error_address: str   # offset in the checked memory, hex text; None without errors
    seconds_last_pass: float


def status(network, address, checker=0, timeout_s=5):
    """What a checker in the guest at `address` has published last; LabError if nobody answers.
    `checker` counts those of a guest with several."""
    fetch = ["timeout", timeout_s, "busybox", "wget", "-q", "-O", "-",
             f"http://{address}/memcheck{checker or ''}.json"]
    text = run(network.exec_argv("client", fetch),
               what=f"ask memory checker {checker} at {address}", timeout_s=timeout_s + 5)
    return Status(**json.loads(text))


def wait_full_passes(network, address, count=1, timeout_s=60, since=None, checker=0):
    """Waits until `count` passes that began after this call have ended and returns the Status then;
    with `since`, an earlier Status of the same guest, those that began after that was published.

    So `count` + 1 passes end: the first of them was under way. Returns at the first error as well.
    LabError after `timeout_s`, with how far it came; an unanswered question alone is no error.
    """
    deadline = time.monotonic() + timeout_s
    wanted = since.passes + count + 1 if since else None
    last = None
    while time.monotonic() < deadline:
        try:
            last = status(network, address, checker)
        except LabError:
            time.sleep(0.1)
            continue
        if wanted is None:
            wanted = last.passes + count + 1
        if last.errors or last.passes >= wanted:
            return last
        time.sleep(0.1)
    raise LabError(f"wait for {count} passes of the memory checker at {address}: "
                   f"after {timeout_s} s it has said {last or 'nothing'}")
