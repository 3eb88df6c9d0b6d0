"""What the client's traffic says about a relocation: pure functions over 100 ms windows.

No input or output, no clock. Times are seconds since the epoch (CLOCK_REALTIME), as QEMU's events
and the load client have them; durations say their unit.
"""

import dataclasses
import math
import statistics

WINDOW_S = 0.1
_SLACK_S = 1e-6  # sums of 0.1 are not exact


@dataclasses.dataclass(frozen=True)
class Window:
    start: float    # of its 100 ms
    count: int      # requests finished in it
    gap_ms: float   # the longest time without a finished request that ended in it; 0 if count is 0


@dataclasses.dataclass(frozen=True)
class Marks:
    """The moments of one relocation, in this order."""

    command: float  # the operator's relocate
    stop: float     # QEMU's STOP at the source
    resume: float   # QEMU's RESUME at the destination
    commit: float   # the last page is there and the source is let go


def base_rate(windows, command, before_s=5.0):
    """Median of the requests per window in the `before_s` before `command`.

    ValueError unless the windows cover that time, or if the median is 0: then nothing can be said.
    """
    before = [w.count for w in windows
              if w.start >= command - before_s - _SLACK_S
              and w.start + WINDOW_S <= command + _SLACK_S]
    if len(before) < before_s / WINDOW_S - 1.5:
        raise ValueError(f"{len(before)} windows in the {before_s} s before the command: "
                         "the load began too late")
    base = statistics.median(before)
    if base == 0:
        raise ValueError(f"no request in most windows of the {before_s} s before the command")
    return base


def _from_to(windows, start, end):
    """The windows that overlap [start, end). ValueError if the run ended before `end`."""
    if not windows or windows[-1].start + WINDOW_S < end - WINDOW_S - _SLACK_S:
        last = windows[-1].start + WINDOW_S - start if windows else 0
        raise ValueError(f"the load ended {last:.1f} s after the command, "
                         f"needed are {end - start:.1f} s")
    return [w for w in windows
            if w.start + WINDOW_S > start + _SLACK_S and w.start < end - _SLACK_S]


def lost_service_ms(windows, command, commit, base, threshold=0.8, after_s=10.0):
    """Service lost to a relocation, as time without any.

    Sum over the windows from `command` until `after_s` after `commit` that have fewer than
    `threshold` x `base` requests, of 100 ms x (1 - requests / base). ValueError if the load ended
    before that.
    """
    return sum(1000 * WINDOW_S * (1 - w.count / base)
               for w in _from_to(windows, command, commit + after_s)
               if w.count < threshold * base)


def longest_gap_ms(windows, command, commit, after_s=10.0):
    """The longest time without a finished request that ended in the same span; with a gap still
    open at the end of the span counted so far as its windows are empty. ValueError as
    lost_service_ms."""
    span = _from_to(windows, command, commit + after_s)
    longest = max((w.gap_ms for w in span), default=0.0)
    empty = 0
    while empty < len(span) and span[-1 - empty].count == 0:
        empty += 1
    return max(longest, empty * WINDOW_S * 1000)


def recovery_ms(windows, marks, base, share=0.9, steady_s=0.5, after_s=10.0):
    """From the command to the begin of the first `steady_s` after RESUME in which at least `share` of
    the former rate was served; None if there is none until `after_s` after commit. ValueError as
    lost_service_ms."""
    span = [w for w in _from_to(windows, marks.command, marks.commit + after_s)
            if w.start > marks.resume - _SLACK_S]
    length = round(steady_s / WINDOW_S)
    for first in range(len(span) - length + 1):
        if sum(w.count for w in span[first:first + length]) >= share * base * length:
            return (span[first].start - marks.command) * 1000
    return None


def render(windows, marks, base, width=100, before_s=0.5, after_s=3.0):
    """The timeline as text: one line a window with a bar, marks beside it, quiet stretches folded.

    Windows from `before_s` before the command to `after_s` after RESUME are shown, and those with a
    mark; of the others up to 2 s after commit a line says how many requests they had. No line is
    longer than `width` (at least 60) characters. Time 0 is the command.
    """
    end = max(marks.commit + 2.0, marks.resume + after_s)
    shown = [w for w in windows if marks.command - before_s - _SLACK_S <= w.start < end]
    names = {}
    for field in dataclasses.fields(marks):
        place = math.floor((getattr(marks, field.name) + _SLACK_S) / WINDOW_S)
        names.setdefault(place, []).append(field.name)
    note_width = max(len(_note(each)) for each in names.values())
    bar_width = max(10, width - 16 - note_width)
    top = max([base, *(w.count for w in shown)])
    lines = [f"requests per 100 ms (before: {base:g}); time from the command"]
    folded = []
    for window in shown:
        place = round(window.start / WINDOW_S)
        near = window.start < marks.resume + after_s
        if not near and place not in names:
            folded.append(window)
            continue
        lines += _folded(folded, marks.command)
        folded = []
        bar = "#" * round(bar_width * window.count / top)
        text = (f"{window.start - marks.command:+7.1f} s {window.count:5d} "
                f"{bar:<{bar_width}}{_note(names.get(place, []))}")
        lines.append(text.rstrip()[:width])
    return "\n".join(lines + _folded(folded, marks.command))


def _note(names):
    return f" < {', '.join(names)}" if names else ""


def _folded(windows, command):
    if not windows:
        return []
    counts = [w.count for w in windows]
    return [f"{windows[0].start - command:+7.1f} s   ... {len(windows) * WINDOW_S:.1f} s with "
            f"{min(counts)} to {max(counts)}, median {statistics.median(counts):g}"]
