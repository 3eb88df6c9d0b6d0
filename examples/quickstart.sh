#!/usr/bin/env bash
# Shows one relocation, from a fresh Debian 12 machine on: installs, builds, then quickstart.py.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: examples/quickstart.sh [--json FILE] [--corrupt-one-byte] [--runs N]

Relocates a running web server's virtual machine between two hosts, which are network namespaces of
this machine, and shows what its client sees of it. Installs what is missing, builds, makes the
guest. As root; under 5 minutes the first time (and the download), under 1 minute after that.

  --json FILE          write the figures to FILE as JSON, too
  --corrupt-one-byte   flip one byte of the guest's memory on its way, to see that it is noticed
  --runs N             do it N times, and give the medians

Exit code: 0 memory is intact, no request failed and no connection was lost; 1 otherwise; 2 usage.

example: examples/quickstart.sh --json /tmp/figures.json
USAGE
}

folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
arguments=("$@")
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --json | --runs)
      [ $# -ge 2 ] || { echo "quickstart: $1 needs a value" >&2; exit 2; }
      shift 2 ;;
    --json=* | --runs=* | --corrupt-one-byte) shift ;;
    *) echo "quickstart: unknown argument $1; --help lists them" >&2; exit 2 ;;
  esac
done
if [ "$(id -u)" != 0 ]; then
  echo "quickstart: needs root: it makes network namespaces and installs packages" >&2
  exit 1
fi

# shellcheck source=tests/setup.sh
source "$folder/tests/setup.sh"
install_packages build
install_packages lab

# The last step of the build, each time it has gone on for some seconds more.
show_build() {
  while sleep 5 2>/dev/null; do
    grep -o '^\[[0-9]*/[0-9]*\]' "$folder/build/release.log" 2>/dev/null | tail -n 1 || true
  done
}

echo "building; all its words go to $folder/build/release.log" >&2
mkdir -p "$folder/build"
(
  flock 9  # one quickstart builds, another one waits
  show_build >&2 9>&- &
  watcher=$!
  trap 'kill "$watcher" 2>/dev/null' EXIT
  build_preset release uffd-server postcopyctl postcopy_preload lab-load-client
) 9>"$folder/build/quickstart.lock"

exec python3 "$folder/examples/quickstart.py" "${arguments[@]}"
