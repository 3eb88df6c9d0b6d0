#!/usr/bin/env bash
# run.sh BUILD-FOLDER SECONDS: runs each fuzz target for so long, from the documents' examples on, as
# many at once as there are cores. Prints one line a target: passed or failed, its name, its last
# words. What a target crashed on stays in BUILD-FOLDER/crashes.
set -uo pipefail
sources=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$1 seconds=$2
crashes=$build/crashes
rm -rf "$crashes" "$build/corpus"
mkdir -p "$crashes" "$build/corpus/address_fuzz"
python3 "$sources/seeds.py" "$sources/../../docs/wire-protocol.md" "$build/corpus/page_stream_fuzz" 03 ||
  exit 1
python3 "$sources/seeds.py" "$sources/../../docs/agent-protocol.md" "$build/corpus/agent_stream_fuzz" ||
  exit 1
printf '[::1]:7700' >"$build/corpus/address_fuzz/ipv6"
printf '00112233445566778899aabbccddeeff' >"$build/corpus/address_fuzz/session"

fuzz_one() {
  local name=$1 log=$build/$1.log outcome=passed
  "$build/tests/fuzz/$name" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=1024 \
    -artifact_prefix="$crashes/$name-" "$build/corpus/$name" >"$log" 2>&1 </dev/null || outcome=failed
  printf '%s\t%s\t%s\n' "$outcome" "$name" \
    "$(grep -E '^Done|ERROR|SUMMARY' "$log" | tail -n 1 | tr '\t' ' ')"
}
export -f fuzz_one
export build seconds crashes
printf '%s\n' "$sources"/*_fuzz.cc | xargs -n 1 basename -s .cc |
  xargs -P "$(nproc)" -I '{}' bash -c 'fuzz_one {}'
