"""The figures of many runs as text, in Markdown. Pictures makes pictures.py; what a figure means says
tests/lab/verdict.py. Pure."""

import statistics

# Name, heading, unit, factor from the JSON's unit.
COLUMNS = (
    ("downtime_ms", "downtime", "ms", 1),
    ("lost_service_ms", "lost service", "ms", 1),
    ("longest_gap_ms", "longest gap", "ms", 1),
    ("to_90_percent_ms", "to 90 %", "ms", 1),
    ("pages_good_share", "pages in time", "%", 100),
    ("page_p99_ms", "page p99", "ms", 1),
    ("downloads_good_share", "downloads in time", "%", 100),
    ("total_ms", "total", "ms", 1),
    ("bytes_moved", "moved", "MB", 1e-6),
    ("faults", "faults", "", 1),
    ("fault_p50_us", "wait p50", "us", 1),
    ("fault_p99_us", "wait p99", "us", 1),
    ("fault_p999_us", "wait p99.9", "us", 1),
    ("touch_waits", "touch waits", "", 1),
    ("touch_waited_ms", "waited", "ms", 1),
    ("touch_p99_us", "touch p99", "us", 1),
    ("cpu_s_per_gib", "CPU", "s/GiB", 1),
    ("memory_peak_bytes", "memory", "MB", 1e-6),
)
# What the arms are put in order by; less is better in each.
RANKED = ("downtime_ms", "lost_service_ms", "page_p99_ms", "touch_waited_ms", "total_ms",
          "bytes_moved", "cpu_s_per_gib")
_HEADINGS = {name: heading for name, heading, _, _ in COLUMNS}


def median_and_mad(values):
    """Median and median absolute deviation; (None, None) if some run has no value."""
    if not values or any(value is None for value in values):
        return None, None
    middle = statistics.median(values)
    return middle, statistics.median(abs(value - middle) for value in values)


def by_arm(results, point):
    """{arm: its results at that point that came to their end}, in the order in which they came."""
    found = {}
    for result in results:
        if point.has(result):
            found.setdefault(result["arm"], [])
            if "unfinished" not in result:
                found[result["arm"]].append(result)
    return found


def differ(first, second):
    """Whether two lists of values differ by more than they spread."""
    (a, spread_a), (b, spread_b) = median_and_mad(first), median_and_mad(second)
    return a is not None and b is not None and abs(a - b) > spread_a + spread_b


def ranking(results, point, column):
    """The arms from least to most; those that do not differ from the one before are equal: a list of
    lists."""
    arms = {arm: [each.get(column) for each in found]
            for arm, found in by_arm(results, point).items()}
    known = [arm for arm in arms if median_and_mad(arms[arm])[0] is not None]
    ranks = []
    for arm in sorted(known, key=lambda arm: median_and_mad(arms[arm])[0]):
        if ranks and not differ(arms[ranks[-1][0]], arms[arm]):
            ranks[-1].append(arm)
        else:
            ranks.append([arm])
    return ranks


def contradictions(first, second, points):
    """Where two sets of results put two arms in opposite order, a sentence each. Arms that do not
    differ in one of them contradict nothing."""
    found = []
    for point in points:
        for column in RANKED:
            places = [{arm: place for place, rank in enumerate(ranking(results, point, column))
                       for arm in rank} for results in (first, second)]
            arms = sorted(set(places[0]) & set(places[1]))
            found += [f"{point}: {_HEADINGS[column]}: {a} and {b}" for i, a in enumerate(arms)
                      for b in arms[i + 1:]
                      if (places[0][a] - places[0][b]) * (places[1][a] - places[1][b]) < 0]
    return found


def table(results, points):
    """For each point a line an arm, median and median absolute deviation of each column, and the
    order of the arms."""
    return "\n".join(text for point in points if (text := _point_table(results, point)))


def _point_table(results, point):
    found = by_arm(results, point)
    columns = [column for column in COLUMNS if any(
        result.get(column[0]) is not None for each in found.values() for result in each)]
    heads = [f"{heading} [{unit}]" if unit else heading for _, heading, unit, _ in columns]
    rows = [["arm", *heads, "finished", "intact"]]
    for arm, each in found.items():
        row = [arm]
        for name, _, _, factor in columns:
            middle, spread = median_and_mad([result.get(name) for result in each])
            row.append("-" if middle is None else
                       f"{_short(middle * factor)} ±{_short(spread * factor)}")
        begun = sum(point.has(result) and result["arm"] == arm for result in results)
        intact = sum(result["verified"] for result in each)
        rows.append([*row, f"{len(each)}/{begun}", f"{intact}/{len(each)}"])
    if len(rows) == 1:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rows.insert(1, ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)])
    lines = [f"### {point}", ""]
    lines += ["| " + " | ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                                for i, (cell, width) in enumerate(zip(row, widths))) + " |"
              for row in rows]
    lines.append("")
    present = [name for name, *_ in columns]
    for column in RANKED:
        if column in present:
            order = " < ".join(" = ".join(rank) for rank in ranking(results, point, column))
            lines.append(f"- {_HEADINGS[column]}: {order}")
    return "\n".join([*lines, ""])


def floors_text(floors):
    """What the machine can do, for a person."""
    installs = "; ".join(
        f"{pages} at a time: " + ", ".join(f"{method.replace('_', ' ')} {time:.2f}"
                                           for method, time in floors[f"install_{pages}_pages_us"].items())
        for pages in (1, 64))
    return (f"Floors: TCP 16 B -> 4 KiB {floors['tcp_round_trip_us']:.0f} us blocking, "
            f"{floors['tcp_round_trip_spinning_us']:.0f} us spinning; one stream "
            f"{floors['tcp_stream_gb_s']:.2f} GB/s; userfaultfd "
            f"{floors['userfault_round_trip_us']:.0f} us blocking, "
            f"{floors['userfault_round_trip_spinning_us']:.0f} us spinning; memcpy "
            f"{floors['memcpy_gb_s']:.1f} GB/s; us a page to install, {installs}")


def multiples(results, points, floors):
    """Waits and throughput as multiples of what the machine can do, where the link is not limited.
    A wait's floor is a blocking round trip over TCP and one of userfaultfd; throughput is what was
    moved by the time from the command to the end."""
    wait_floor = floors["tcp_round_trip_us"] + floors["userfault_round_trip_us"]
    lines = []
    for point in points:
        if point.link != "unlimited":
            continue
        for arm, each in by_arm(results, point).items():
            if not each:
                continue
            speed = statistics.median(result["bytes_moved"] / 1e9 / (result["total_ms"] / 1e3)
                                      for result in each)
            text = f"{speed:.2f} GB/s = {speed / floors['tcp_stream_gb_s']:.2f} of one TCP stream"
            wait, _ = median_and_mad([result.get("fault_p50_us") for result in each])
            if wait is not None:
                text += f"; wait p50 {wait:.0f} us = {wait / wait_floor:.2f} of {wait_floor:.0f} us"
            lines.append(f"- {point}, {arm}: {text}")
    return "\n".join(["As multiples of the floors:", "", *lines, ""])


def _short(value):
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"
