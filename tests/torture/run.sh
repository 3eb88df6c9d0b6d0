#!/usr/bin/env bash
# Relocates a VM to and fro under faults, from a fresh Debian 12 machine on: installs, builds, then
# torture.py.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: tests/torture/run.sh [--seconds N] [--seed S] [--without KIND[,KIND]] [--json FILE]

A VM with a web load and a memory checker hops between two hosts (network namespaces of this machine)
without a pause, while links, connections, daemons and the waiting QEMU are broken at moments that
follow from the seed. After each hop the VM must answer from exactly one host, with no wrong word in its
memory or on its disk; at the end all files are verified by SHA-256, and the disk by this host. As root;
installs what is missing.

  --seconds N    hop for so long (180); the last hop and the checks come on top
  --seed S       another seed is another torture, the same seed the same (1)
  --without KIND leave a kind of injection out, and change nothing else, to narrow a fault down:
                   cuts    a host's link is down for 0.1 to 8 s
                   flaps   it comes and goes
                   shapes  the links have 100 Mbit/s, or more, or are not limited, from then on
                   resets  the connections between the daemons end
                   daemon-kills                 SIGKILL before the switch, and a start 0 to 2 s later
                   daemon-kills-while-arriving  the same after the switch
                   daemon-stalls                SIGSTOP for 0.2 to 6 s
                   vmm-kills  SIGKILL for the QEMU that waits, before the switch
                   balloons   the guest's balloon moves
                   cancels    an operator gives the relocation up, or tries to
                   pauses     an operator pauses the guest for 0.1 to 3 s
                   foreign-conts  `cont` at the source's QEMU after the switch
                   source-ends    SIGTERM for the source's QEMU while memory arrives
  --json FILE    write all counts and injections to FILE

The last line of stdout sums up: hops are attempts, one that was rolled back, cancelled or refused is
tried again; `left over` counts relocations and QEMUs that had to be put away by hand. Where something
was lost or wrong, it is said what, the log of injections is printed, and the hosts' logs are kept.

POSTCOPY_BUILD_DIR: a folder that is built already; nothing is installed or built then.

Exit code: 0 nothing was lost or wrong; 1 otherwise; 2 usage; 77 this machine cannot run it, and why.

example: tests/torture/run.sh --seconds 180 --seed 7
USAGE
}

folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
arguments=("$@")
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --seconds | --seed | --without | --json)
      [ $# -ge 2 ] || { echo "torture: $1 needs a value" >&2; exit 2; }
      shift 2 ;;
    --seconds=* | --seed=* | --without=* | --json=*) shift ;;
    *) echo "torture: unknown argument $1; --help lists them" >&2; exit 2 ;;
  esac
done

if [ -z "${POSTCOPY_BUILD_DIR-}" ]; then
  if [ "$(id -u)" != 0 ]; then
    echo "torture: needs root: it makes network namespaces and installs packages" >&2
    exit 1
  fi
  # shellcheck source=tests/setup.sh
  source "$folder/tests/setup.sh"
  install_packages build
  install_packages lab
  echo "building; all its words go to $folder/build/release.log" >&2
  build_preset release uffd-server postcopyctl postcopy_preload lab-load-client
fi
exec python3 "$folder/tests/torture/torture.py" "${arguments[@]}"
