"""The figures of many runs as a table and as pictures.

Pure but for write_pictures(), which calls gnuplot. What a figure means says tests/lab/verdict.py.
"""

import pathlib
import statistics
import subprocess

# Name, heading, unit, factor from the JSON's unit.
COLUMNS = (
    ("downtime_ms", "downtime", "ms", 1),
    ("lost_service_ms", "lost service", "ms", 1),
    ("longest_gap_ms", "longest gap", "ms", 1),
    ("total_ms", "total", "ms", 1),
    ("bytes_moved", "moved", "MB", 1e-6),
    ("faults", "faults", "", 1),
    ("fault_p50_us", "wait p50", "us", 1),
    ("fault_p99_us", "wait p99", "us", 1),
    ("touch_waits", "touch waits", "", 1),
    ("touch_waited_ms", "waited", "ms", 1),
    ("touch_p99_us", "touch p99", "us", 1),
    ("cpu_s_per_gib", "CPU", "s/GiB", 1),
)
_SERVICE_SPAN_S = (-1.0, 6.0)  # of the picture, from the command


def median_and_mad(values):
    """Median and median absolute deviation; (None, None) if some run has no value."""
    if not values or any(value is None for value in values):
        return None, None
    middle = statistics.median(values)
    return middle, statistics.median(abs(value - middle) for value in values)


def by_arm(results, point):
    """{arm: its results at that point}, in the order in which they came."""
    found = {}
    for result in results:
        if (result["load"], result["link"]) == (point.load, point.link):
            found.setdefault(result["arm"], []).append(result)
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


def table(results, points):
    """Text: for each point a line an arm, median and median absolute deviation of each column."""
    lines = []
    for point in points:
        found = by_arm(results, point)
        if not found:
            continue
        columns = [column for column in COLUMNS if any(
            result.get(column[0]) is not None for each in found.values() for result in each)]
        heads = [f"{heading} [{unit}]" if unit else heading for _, heading, unit, _ in columns]
        rows = [["arm", *heads, "runs", "intact"]]
        for arm, each in found.items():
            row = [arm]
            for name, _, _, factor in columns:
                middle, spread = median_and_mad([result.get(name) for result in each])
                row.append("-" if middle is None else
                           f"{_short(middle * factor)} ±{_short(spread * factor)}")
            intact = sum(result["verified"] for result in each)
            rows.append([*row, str(len(each)), f"{intact}/{len(each)}"])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines.append(f"{point}:")
        lines += ["  " + "  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
                                   for i, (cell, width) in enumerate(zip(row, widths)))
                  for row in rows]
        for column in ("downtime_ms", "lost_service_ms", "touch_waited_ms", "total_ms"):
            if column not in [name for name, *_ in columns]:
                continue
            order = " < ".join(" = ".join(rank) for rank in ranking(results, point, column))
            lines.append(f"  {column}: {order}   (= no difference beyond the spread)")
        lines.append("")
    return "\n".join(lines)


def floors_text(floors):
    """What the machine can do, for a person."""
    installs = "; ".join(
        f"{pages} at a time: " + ", ".join(f"{method.replace('_', ' ')} {time:.2f}"
                                           for method, time in floors[f"install_{pages}_pages_us"].items())
        for pages in (1, 64))
    return (f"floors: TCP 16 B -> 4 KiB {floors['tcp_round_trip_us']:.0f} us blocking, "
            f"{floors['tcp_round_trip_spinning_us']:.0f} us spinning; one stream "
            f"{floors['tcp_stream_gb_s']:.2f} GB/s; userfaultfd "
            f"{floors['userfault_round_trip_us']:.0f} us blocking, "
            f"{floors['userfault_round_trip_spinning_us']:.0f} us spinning; memcpy "
            f"{floors['memcpy_gb_s']:.1f} GB/s; us a page to install, {installs}")


def multiples(results, points, floors):
    """Text: waits and throughput as multiples of what the machine can do, where the link is not limited.
    A wait's floor is a blocking round trip over TCP and one of userfaultfd; throughput is what was
    moved by the time from the command to the end."""
    wait_floor = floors["tcp_round_trip_us"] + floors["userfault_round_trip_us"]
    lines = []
    for point in points:
        if point.link != "unlimited":
            continue
        for arm, each in by_arm(results, point).items():
            speeds = [result["bytes_moved"] / 1e9 / (result["total_ms"] / 1e3) for result in each]
            speed = statistics.median(speeds)
            text = f"{speed:.2f} GB/s = {speed / floors['tcp_stream_gb_s']:.2f} of one TCP stream"
            wait, _ = median_and_mad([result.get("fault_p50_us") for result in each])
            if wait is not None:
                text += f"; wait p50 {wait:.0f} us = {wait / wait_floor:.2f} of {wait_floor:.0f} us"
            lines.append(f"  {point}, {arm}: {text}")
    return "\n".join(["as multiples of the floors:", *lines, ""])


def _short(value):
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def write_pictures(results, points, folder):
    """Writes service-LOAD-LINK.{png,svg}: requests per 100 ms around the relocation, every arm on one
    axis, of the run with the median lost service. Returns the files. CalledProcessError as gnuplot."""
    folder = pathlib.Path(folder)
    written = []
    for point in points:
        found = by_arm(results, point)
        if not found or point.load != "web":
            continue
        curves = []
        for arm, each in found.items():
            ordered = sorted(each, key=lambda result: result["lost_service_ms"])
            chosen = ordered[len(ordered) // 2]
            data = folder / f"service-{point.load}-{point.link}-{arm}.dat"
            data.write_text("".join(f"{t:.2f} {count}\n" for t, count in chosen["service"]
                                    if _SERVICE_SPAN_S[0] <= t <= _SERVICE_SPAN_S[1]))
            curves.append((arm, data))
        for kind, terminal in (("png", "pngcairo size 1200,600"), ("svg", "svg size 1200,600")):
            picture = folder / f"service-{point.load}-{point.link}.{kind}"
            plots = ", ".join(f"'{data}' with linespoints dashtype {i + 1} pointtype {2 * i + 4} "
                              f"pointsize 0.6 linewidth 2 title '{arm}'"
                              for i, (arm, data) in enumerate(curves))
            script = (f"set terminal {terminal}\nset output '{picture}'\n"
                      f"set title 'Requests around a relocation ({point})'\n"
                      "set xlabel 'time from the command [s]'\n"
                      "set ylabel 'finished requests per 100 ms'\nset yrange [0:*]\n"
                      f"set xrange [{_SERVICE_SPAN_S[0]}:{_SERVICE_SPAN_S[1]}]\n"
                      f"set key outside bottom horizontal\nset grid\nplot {plots}\n")
            subprocess.run(["gnuplot"], input=script, text=True, check=True)
            written.append(picture)
        for _, data in curves:
            data.unlink()
    return written
