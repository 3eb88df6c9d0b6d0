#!/usr/bin/env bash
# Compares relocations with QEMU's own migration, from a fresh Debian 12 machine on: installs, builds,
# then bench.py.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: perf/run.sh [--quick] [--arm ARM]... [--load LOAD]... [--link LINK]... [--runs N]
                   [--json FILE] [--against FILE] [--traces] [--fresh] [--folder FOLDER]
       perf/run.sh --process-level [--mib MIB] [--runs N] [--json FILE]

Relocates a running guest by QEMU's pre-copy and post-copy and by libpostcopy, alternating, with the
same guest, load and network, and prints medians and spreads. Says first how long it will take. What
has been measured is kept (build/perf/results): the same command goes on where it was interrupted.
As root; installs what is missing.

  --quick         web load on two links, three arms, three runs: about 10 minutes
  --arm, --load, --link   only these; may be repeated
  --runs N        N runs for each arm and condition
  --json FILE     write all runs to FILE, a list with one object a run
  --against FILE  say which arms FILE, of an earlier --json, has in opposite order
  --traces        keep each run's trace of faults beside its result, for perf/replay
  --fresh         measure again what was measured before
  --folder FOLDER where results and pictures are kept
  --process-level the memory of a process instead of a VM, beside CRIU's lazy-pages; --mib: how much

Exit code: 0 every run came to its end; 1 otherwise; 2 usage.

example: perf/run.sh --quick --json /tmp/figures.json
USAGE
}

folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for argument in "$@"; do
  case $argument in -h | --help) usage; exit 0 ;; esac
done
if [ "$(id -u)" != 0 ]; then
  echo "perf: needs root: it makes network namespaces and installs packages" >&2
  exit 1
fi

# shellcheck source=tests/setup.sh
source "$folder/tests/setup.sh"
install_packages build
install_packages lab
if [ "${1-}" = --process-level ]; then
  build_preset release process-toucher process-page-server
  exec python3 "$folder/perf/process_level.py" "${@:2}"
fi
install_packages perf
echo "building; all its words go to $folder/build/release.log" >&2
build_preset release uffd-server postcopyctl postcopy_preload lab-load-client lab-relay floors
export POSTCOPY_LAB_RELAY="$folder/build/release/bin/lab-relay"
exec python3 "$folder/perf/bench.py" "$@"
