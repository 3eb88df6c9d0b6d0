#!/usr/bin/env python3
"""Compares how the memory of a process arrives: CRIU's lazy-pages and libpostcopy's engine.

Both in one machine of its own with Debian's kernel, since CRIU does not know every kernel: what happens
there says process/scenario.sh, what follows from it process_figures.py. Needs the targets
process-toucher and process-page-server, in POSTCOPY_BUILD_DIR or build/release.
"""

import argparse
import json
import os
import pathlib
import shlex
import shutil
import sys

PROJECT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(PROJECT / "tests"))
from lab import guest, nested, packages  # noqa: E402
from lab.commands import LabError  # noqa: E402
import process_figures  # noqa: E402

# CRIU, and of its libraries those that the lab's own packages do not bring along. Unpacked only.
_CRIU_PACKAGES = ("criu", "libjansson4", "libnet1", "libnftables1", "libnftnl11", "libnl-3-200",
                  "libprotobuf-c1")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"
_CRIU = "/usr/sbin/criu"
# nf_tables and the rest up to af_packet_diag are CRIU's.
_MODULES = ("nf_tables", "unix_diag", "inet_diag", "tcp_diag", "udp_diag", "raw_diag", "netlink_diag",
            "af_packet_diag", "veth")
_TOOLS = ("ip", "setsid", "unshare", "date")
_SECONDS_A_RUN = 60  # of both arms; to begin with, and for each 64 MiB 20 more: for the estimate


def criu_files():
    """CRIU and the libraries it needs: {path there: path here}. LabError if they can't be had."""
    cache = packages.cache_directory()
    with packages.CacheLock(cache):
        trees = [packages.unpacked(name, cache) for name in _CRIU_PACKAGES]
    program = trees[0] / _CRIU.lstrip("/")
    files = {_CRIU: program}
    for library in guest.libraries(program, [tree / _LIBRARIES for tree in trees]):
        unpacked = any(tree in library.parents for tree in trees)
        files[f"/{_LIBRARIES}/{library.name}" if unpacked else str(library)] = library
    return files


def play(mib, runs, built, timeout_s):
    """The console's text after `runs` runs of each arm with `mib` MiB. LabError if one failed."""
    own = {"toucher": built / "perf/process-toucher", "page_server": built / "perf/process-page-server"}
    for program in own.values():
        if not program.exists():
            raise LabError(f"{program} is not built")
    tools = {name: shutil.which(name) for name in _TOOLS}
    if absent := [name for name, path in tools.items() if path is None]:
        raise LabError(f"{', '.join(absent)}: not installed")
    settings = {"mib": mib, "runs": runs, "criu": _CRIU, **own, **tools}
    script = "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in settings.items())
    script += (PROJECT / "perf/process/scenario.sh").read_text()
    # Three times the memory: at the source, at the destination, and what is on its way.
    return nested.run(script, [*own.values(), *tools.values()], criu_files(), _MODULES,
                      memory_mib=3 * mib + 512, timeout_s=timeout_s, root_is_mount=True)


def main():
    parser = argparse.ArgumentParser(description="Compare libpostcopy with CRIU at process level.")
    parser.add_argument("--mib", type=int, default=256, help="memory of the process (default: %(default)s)")
    parser.add_argument("--runs", type=int, metavar="N", default=3,
                        help="N runs of each arm (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="write all runs to FILE, a list")
    asked = parser.parse_args()
    if asked.mib < 1 or asked.runs < 1:
        parser.error("--mib and --runs: at least 1")
    estimate_s = asked.runs * (_SECONDS_A_RUN + 20 * asked.mib / 64)
    print(f"{2 * asked.runs} runs with {asked.mib} MiB, about {estimate_s / 60:.0f} minutes", flush=True)
    built = pathlib.Path(os.environ.get("POSTCOPY_BUILD_DIR") or PROJECT / "build/release")
    console = play(asked.mib, asked.runs, built, 4 * estimate_s)
    found = process_figures.results(console)
    print(f"\n{process_figures.table(found)}\n{process_figures.LEGEND}")
    if asked.json:
        pathlib.Path(asked.json).write_text(json.dumps(found, indent=1) + "\n")
    return 0 if len(found) == 2 * asked.runs and all(one["verified"] for one in found) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LabError, OSError, ValueError) as error:
        sys.exit(f"perf: {error}")
