# shellcheck shell=bash
# To be sourced: installs what a step needs and is not there, and builds as this machine can.
#
# Works as root on a fresh Debian 12. When nothing is missing it asks neither apt nor the network.

setup_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project_folder=$(dirname "$setup_folder")

# The packages of one [group] of packages.txt, one a line.
packages_of_group() {
  awk -v group="[$1]" '/^\[/ { on = ($1 == group); next } on && NF && !/^#/ { print $1 }' \
    "$setup_folder/packages.txt"
}

is_installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

apt_get() {
  DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o DPkg::Lock::Timeout=300 \
    -o Dpkg::Use-Pty=0 "$@" </dev/null >&2
}

# install_packages build|analysis|fuzz|package|perf|lab: what is missing of a group. Non-zero, with apt's own
# words on stderr, if something can't be had.
install_packages() {
  local name
  local -a missing=()
  if [ "$1" = lab ]; then
    is_installed python3 || install_packages build || return
    python3 "$setup_folder/lab/packages.py" >&2
    return
  fi
  for name in $(packages_of_group "$1"); do
    is_installed "$name" || missing+=("$name")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  echo "installing ${missing[*]}" >&2
  apt_get update && apt_get install --no-install-recommends "${missing[@]}"
}

# What ccache must overlook to serve files that use a precompiled header; and that a fresh checkout
# has fresh times.
ccache_sloppiness=pch_defines,time_macros,include_file_mtime,include_file_ctime

# build_preset PRESET [TARGET...]: configures and builds one preset of CMakePresets.json, with ccache
# where it is installed. Without a target: what the build preset says. Quiet unless it fails.
build_preset() {
  local preset=$1 log
  local -a launcher=() targets=()
  shift
  [ $# -eq 0 ] || targets=(--target "$@")
  command -v ccache >/dev/null && launcher=("-DCMAKE_CXX_COMPILER_LAUNCHER=env;CCACHE_SLOPPINESS=$ccache_sloppiness;ccache")
  mkdir -p "$project_folder/build"
  log=$project_folder/build/$preset.log
  if ! (cd "$project_folder" && cmake --preset "$preset" "${launcher[@]}" &&
        cmake --build --preset "$preset" "${targets[@]}") >"$log" 2>&1; then
    tail -n 60 "$log" >&2
    echo "build of preset $preset failed; all of it: $log" >&2
    return 1
  fi
}
