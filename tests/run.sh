#!/usr/bin/env bash
# Installs what is missing, builds, runs the tests by label, and ends with one line that sums up.
# CONTRIBUTING.md says what each label is. Runs as root: userfaultfd, namespaces and apt need it.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
# shellcheck source=tests/setup.sh
source tests/setup.sh

ci_labels=(unit process asan tsan package vm torture)
other_labels=(thread-safety vm-long wide guests fuzz matrix sanitized nested)
fuzz_seconds=60  # a target

usage() {
  cat <<'USAGE'
usage: tests/run.sh [--label LABEL]... [--list]

  --label LABEL   run only this label; may be repeated. Without: those that CI runs
  --list          print the labels; those in brackets do not run in CI

example: tests/run.sh --label unit
USAGE
}

labels=()
while [ $# -gt 0 ]; do
  case $1 in
    --label)
      [ $# -ge 2 ] || { usage >&2; exit 2; }
      printf '%s\n' "${ci_labels[@]}" "${other_labels[@]}" | grep -qxF -- "$2" ||
        { echo "run.sh: no label $2; there are: ${ci_labels[*]} ${other_labels[*]}" >&2; exit 2; }
      labels+=("$2")
      shift 2 ;;
    --list) printf '%s\n' "${ci_labels[@]}" "${other_labels[@]/#/(}" | sed 's/^(.*/&)/'; exit 0 ;;
    -h | --help) usage; exit 0 ;;
    *) echo "run.sh: unknown argument $1" >&2; usage >&2; exit 2 ;;
  esac
done
[ "${#labels[@]}" -gt 0 ] || labels=("${ci_labels[@]}")

results=$PWD/build/results
rm -rf "$results"
mkdir -p "$results"

# note LABEL NAME passed|failed|skipped [REASON]: one result for the sum, of a step without ctest.
note() {
  printf '%s\t%s\t%s\n' "$3" "$2" "${4:-}" >>"$results/$1.steps"
}

# step LABEL NAME COMMAND...: runs the command; its failure is a failed result.
step() {
  local label=$1 name=$2
  shift 2
  "$@" && return 0
  note "$label" "$name" failed
  return 1
}

# run_ctest LABEL PRESET CTEST-LABEL JOBS [WRAPPER...]
run_ctest() {
  local label=$1 preset=$2 selected=$3 jobs=$4
  shift 4
  mkdir -p "$results/$label"
  # A GoogleTest program leaves its cases there; tests/sum_up.py counts them.
  GTEST_OUTPUT="xml:$results/$label/" "$@" ctest --test-dir "build/$preset" -L "^$selected\$" \
    -j "$jobs" --output-on-failure --no-tests=ignore --output-junit "$results/$label.xml" |
    grep -v -e '^Internal ctest' -e '^Test project' -e '^ *Start ' -e '^$'
  return 0  # what failed is in the results
}

# ThreadSanitizer of clang 14 does not find its place under the address randomisation of new kernels.
fixed_addresses() {
  if setarch -R true 2>/dev/null; then setarch -R "$@"; else "$@"; fi
}

run_label() {
  local label=$1 cores
  cores=$(nproc)
  step "$label" "install packages" install_packages build || return
  case $label in
    unit)
      step unit "build" build_preset release all headers || return
      run_ctest unit release unit "$cores" ;;
    process)
      step process "build" build_preset release || return
      run_ctest process release process 1 ;;
    package)
      step package "install packages of the test" install_packages package || return
      step package "build" build_preset release || return
      run_ctest package release package 1 ;;
    vm | vm-long)
      step "$label" "install packages of the lab" install_packages lab || return
      step "$label" "build" build_preset release || return
      # These wait more than they compute.
      run_ctest "$label" release "$label" "$((cores + (cores + 1) / 2))" ;;
    wide | guests | torture | matrix | nested)
      step "$label" "install packages of the lab" install_packages lab || return
      step "$label" "build" build_preset release || return
      run_ctest "$label" release "$label" "$cores" ;;
    sanitized)
      step sanitized "install packages of the lab" install_packages lab || return
      step sanitized "install clang" install_packages fuzz || return
      step sanitized "build" build_preset release || return
      step sanitized "build with sanitizers" build_preset asan uffd-server postcopyctl \
        postcopy_preload || return
      run_ctest sanitized release sanitized 1 ;;
    asan)
      step asan "install clang" install_packages fuzz || return
      step asan "build" build_preset asan || return
      run_ctest asan asan unit "$cores" ;;
    tsan)
      step tsan "install clang" install_packages fuzz || return
      step tsan "build" build_preset tsan || return
      note tsan "lock annotations" passed
      run_ctest tsan tsan unit "$cores" fixed_addresses ;;
    fuzz)
      step fuzz "install clang" install_packages fuzz || return
      step fuzz "build" build_preset fuzz || return
      step fuzz "fuzz targets begin" tests/fuzz/run.sh "$PWD/build/fuzz" "$fuzz_seconds" \
        >"$results/fuzz.targets"
      while IFS=$'\t' read -r outcome name words; do
        echo "$name $outcome: $words"
        note fuzz "$name" "$outcome" "$words"
      done <"$results/fuzz.targets" ;;
    thread-safety)
      step thread-safety "install clang" install_packages analysis || return
      step thread-safety "each file alone" build_preset clang-tsa || return
      note thread-safety "each file alone" passed ;;
  esac
}

for label in "${labels[@]}"; do
  echo "=== $label"
  began=$SECONDS
  run_label "$label"
  echo "$label took $((SECONDS - began)) s" | tee -a "$results/times"
done

echo "=== summary"
cat "$results/times"
exec python3 tests/sum_up.py "$results"
