"""What runs at process level say: figures from the words of perf/process/scenario.sh, and their table.

Pure. What the words mean say scenario.sh and toucher.c in perf/process/.
"""

import json

import report
from lab import traffic

# Name and heading, as in the table.
_COLUMNS = (("touch_waits", "touch waits"), ("touch_waited_ms", "waited [ms]"),
            ("touch_p50_us", "touch p50 [us]"), ("touch_p99_us", "touch p99 [us]"),
            ("after_switch_ms", "after switch [ms]"), ("total_ms", "total [ms]"),
            ("gap_ms", "gap [ms]"))
_NOTHING = {"touches": 0, "waited_us": 0, "waits": []}

LEGEND = """\
CRIU freezes a process, moves its state and starts it elsewhere; libpostcopy moves memory alone, below a
process that is there already. So `gap` (time without a touch at the switch) and `total` (from the command)
are no comparison: the waits are, and `after switch`, the time from the first touch at the destination to
the last page."""


def results(console):
    """The runs that the text of the machine's console tells of: a list of {arm, run, figures…}.
    ValueError if a line does not say what it should."""
    found = []
    for line in console.splitlines():
        if line.startswith("MEASURED "):
            try:
                found.append(_result(json.loads(line.removeprefix("MEASURED "))))
            except (KeyError, TypeError) as error:
                raise ValueError(f"no figures, {error!r} in {line}") from None
    return found


def _result(said):
    status = said["status"]
    # The toucher has begun to count waits at the switch.
    figures = traffic.waits_between(_NOTHING, status)
    if said["complete_s"] is None:
        moved = {"gap_ms": None, "after_switch_ms": status["after_switch_ms"],
                 "total_ms": status["total_ms"]}
    else:
        moved = {"gap_ms": status["gap_ms"],
                 "after_switch_ms": (said["complete_s"] - status["switched_s"]) * 1000,
                 "total_ms": (said["complete_s"] - said["command_s"]) * 1000}
    return {"arm": said["arm"], "run": said["run"],
            **{name: figures[name] for name in ("touch_waits", "touch_limit_us", "touch_waited_ms",
                                                "touch_p50_us", "touch_p99_us")},
            **{name: None if time is None else round(time, 1) for name, time in moved.items()},
            "verified": status["wrong_words"] == 0 and status["lost_writes"] == 0}


def table(found):
    """Text: a line an arm, median and median absolute deviation of each figure."""
    rows = [["arm", *(heading for _, heading in _COLUMNS), "runs", "intact"]]
    for arm in dict.fromkeys(result["arm"] for result in found):
        each = [result for result in found if result["arm"] == arm]
        middles = (report.median_and_mad([result[name] for result in each]) for name, _ in _COLUMNS)
        rows.append([arm, *("-" if middle is None else f"{middle:.0f} ±{spread:.0f}"
                            for middle, spread in middles),
                     str(len(each)), f"{sum(result['verified'] for result in each)}/{len(each)}"])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join([row[0].ljust(widths[0]),
                                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))])
                     for row in rows) + "\n"
