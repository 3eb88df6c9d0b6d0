"""The figures of many runs as pictures, by gnuplot: PNG and SVG, legible without colour.

Every write_… function writes into a folder and returns the files it has written; none if there is
nothing to show. subprocess.CalledProcessError when gnuplot fails.
"""

import pathlib
import statistics
import subprocess
import tempfile

import plan
import report

_TERMINALS = (("png", "pngcairo size 1200,600"), ("svg", "svg size 1200,600"))
_BEFORE_S, _LONGEST_S = 1.0, 60.0  # of a service picture: before the command, and at most after it


def write_all(results, points, folder):
    """Every picture that these results can give."""
    written = []
    for point in points:
        written += write_service(results, point, folder)
        written += write_waits(results, point, folder)
    return written + write_links(results, folder)


def write_service(results, point, folder):
    """Requests per 100 ms around the relocation, every arm on one axis, of each arm the run with the
    median lost service."""
    curves, longest = [], 0
    for arm, each in report.by_arm(results, point).items():
        each = [result for result in each if result.get("service")
                and result.get("lost_service_ms") is not None]
        if each:
            shown = sorted(each, key=lambda result: result["lost_service_ms"])[len(each) // 2]
            longest = max(longest, shown["total_ms"] / 1000)
            curves.append((arm, shown["service"]))
    end = min(longest + 3, _LONGEST_S)
    return _write(pathlib.Path(folder) / f"service-{point.slug}", [
        f"set title 'Requests around a relocation ({point})'",
        "set xlabel 'time from the command [s]'",
        "set ylabel 'finished requests per 100 ms'",
        "set yrange [0:*]",
        f"set xrange [{-_BEFORE_S}:{end:g}]"],
        [(arm, [(t, count) for t, count in service if -_BEFORE_S <= t <= end])
         for arm, service in curves])


def write_waits(results, point, folder):
    """How many of the waits for a page were at most so long; of all runs of an arm together."""
    curves = []
    for arm, each in report.by_arm(results, point).items():
        waits = sorted(wait for result in each for wait in result.get("waits_us", ()))
        if waits:
            curves.append((arm, _distribution(waits)))
    return _write(pathlib.Path(folder) / f"waits-{point.slug}", [
        f"set title 'Waits for a page, from its event read to its wake-up ({point})'",
        "set xlabel 'wait [us]'", "set logscale x",
        "set ylabel 'share of waits that were at most so long'",
        "set yrange [0:1]"], curves, style="lines")


def write_links(results, folder):
    """Total time, and bytes moved, by link."""
    written = []
    for name, label, factor in (("total_ms", "total time [s]", 1e-3),
                                ("bytes_moved", "bytes moved [MB]", 1e-6)):
        values = {}
        for link in plan.LINKS:
            point = plan.Point(link=link)
            for arm, each in report.by_arm(results, point).items():
                if each:
                    values.setdefault(arm, {})[link] = factor * statistics.median(
                        result[name] for result in each)
        links = [link for link in plan.LINKS if any(link in each for each in values.values())]
        if len(links) < 2:
            continue
        written += _write_categories(pathlib.Path(folder) / f"links-{name}", [
            "set title 'By link (web, 1 GiB, random, medians)'", f"set ylabel '{label}'",
            "set yrange [0:*]" if name == "bytes_moved" else "set logscale y"], links, values)
    return written


def _distribution(ordered, steps=400):
    """Some points of the cumulative distribution, the first and the last among them."""
    places = sorted({round(i * (len(ordered) - 1) / steps) for i in range(steps + 1)})
    return [(ordered[place], (place + 1) / len(ordered)) for place in places]


def _look(name, style):
    """How an arm looks, the same in every picture."""
    number = plan.ARMS.index(name) if name in plan.ARMS else len(plan.ARMS)
    points = f" pointtype {2 * number + 4}" if style == "linespoints" else ""
    return f"with {style} dashtype {number + 1} linecolor {number + 1} linewidth 2{points}"


def _write(stem, settings, curves, style="linespoints"):
    """Curves on common axes: [(name, [(x, y)])]."""
    if not curves:
        return []
    data = ["\n".join(f"{x:g} {y:g}" for x, y in points) for _, points in curves]
    size = " pointsize 0.6" if style == "linespoints" else ""
    plots = [f"$data{i} {_look(name, style)}{size} title '{name}'"
             for i, (name, _) in enumerate(curves)]
    return _gnuplot(stem, [*(f"$data{i} << end\n{text}\nend" for i, text in enumerate(data)),
                           *settings, f"plot {', '.join(plots)}"])


def _write_categories(stem, settings, categories, values):
    """A point for each category and name: {name: {category: value}}."""
    rows = "\n".join(" ".join([category, *(f"{each.get(category, 'NaN')}" for each in values.values())])
                     for category in categories)
    plots = [f"$data using 0:{i + 2}:xtic(1) {_look(name, 'linespoints')} pointsize 1.5 title '{name}'"
             for i, name in enumerate(values)]
    return _gnuplot(stem, [f"$data << end\n{rows}\nend", *settings,
                           f"set xrange [-0.3:{len(categories) - 0.7:g}]", f"plot {', '.join(plots)}"])


def _gnuplot(stem, lines):
    written = []
    for suffix, terminal in _TERMINALS:
        picture = stem.with_name(f"{stem.name}.{suffix}")
        script = [f"set terminal {terminal}", f"set output '{picture}'",
                  "set key outside top horizontal", "set grid", *lines]
        with tempfile.NamedTemporaryFile("w", suffix=".gnuplot") as file:
            file.write("\n".join(script) + "\n")
            file.flush()
            subprocess.run(["gnuplot", file.name], check=True)
        written.append(picture)
    return written
