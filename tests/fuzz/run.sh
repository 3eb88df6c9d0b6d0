#!/usr/bin/env bash
# run.sh BUILD-FOLDER SECONDS: runs each fuzz target for so long, from the documents' examples and
# from seeds/ on, as many at once as there are cores. Prints one line a target: passed or failed, its
# name, its last words. What a target crashed on stays in BUILD-FOLDER/crashes.
set -uo pipefail
sources=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(cd "$sources/../.." && pwd)
build=$1 seconds=$2
crashes=$build/crashes
corpus=$build/corpus
rm -rf "$crashes" "$corpus"
mkdir -p "$crashes"
cp -r "$sources/seeds" "$corpus" || exit 1
cp "$project/packaging/uffd-server.toml" "$corpus/config_fuzz/example"
python3 "$sources/seeds.py" "$project/docs/wire-protocol.md" "$corpus/page_stream_fuzz" 03 || exit 1
for target in agent_stream_fuzz keepsake_fuzz; do
  python3 "$sources/seeds.py" "$project/docs/agent-protocol.md" "$corpus/$target" || exit 1
done

# encode SEED TYPE FIRST-BYTE: a message in protobuf's text format becomes what is sent of it.
encode() {
  local file=$corpus/message_fuzz/$1.$2
  { printf '%b' "$3" &&
    protoc -I "$project/uffd-server" --encode="postcopy.v1.$2" control/postcopy.proto <"$file"; } \
    >"$file.encoded" && mv "$file.encoded" "$file"
}
encode offer OfferRequest '\0' && encode progress Progress '\1' && encode list ListResponse '\2' ||
  exit 1

fuzz_one() {
  local name=$1 log=$build/$1.log outcome=passed
  "$build/tests/fuzz/$name" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=1024 \
    -artifact_prefix="$crashes/$name-" "$corpus/$name" >"$log" 2>&1 </dev/null || outcome=failed
  printf '%s\t%s\t%s\n' "$outcome" "$name" \
    "$(grep -E '^Done|ERROR|SUMMARY' "$log" | tail -n 1 | tr '\t' ' ')"
}
export -f fuzz_one
export build seconds crashes corpus
printf '%s\n' "$sources"/*_fuzz.cc | xargs -n 1 basename -s .cc |
  xargs -P "$(nproc)" -I '{}' bash -c 'fuzz_one {}'
