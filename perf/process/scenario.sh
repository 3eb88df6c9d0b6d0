# Moves a process's memory from one network namespace to another, by CRIU and by libpostcopy in turn,
# and prints what was seen. For busybox's sh, as root, in a machine of its own; process_level.py, which
# starts it there, sets: mib, runs, toucher, page_server, criu, ip, setsid, unshare, date.
#
# A line "MEASURED {…}" a run: arm, run, command_s and complete_s (CRIU: when `criu dump` was called,
# when the last page was there; seconds since the epoch), status (of toucher.c). Not responsible for
# what follows from that. With an argument: one side of CRIU's arm, in namespaces of its own.
source_ip=10.9.0.1
destination_ip=10.9.0.2
status=/tmp/status
moved=/tmp/moved
images=/tmp/images
work=/tmp/work
limit_s=300

# To be followed by a command; no functions, so that $! is the command's number.
in_source="$ip netns exec source"
in_destination="$ip netns exec destination"
# busybox's date knows no nanoseconds.
now_s() { $date +%s.%N; }

fail() {
  echo "$1; the ends of the logs:"
  for log in /tmp/*.log $images/*.log $work/*.log; do
    [ ! -e "$log" ] || { echo "$log:"; tail -n 15 "$log"; }
  done
  exit 1
}

# wait_until WHAT COMMAND...: until the command succeeds.
wait_until() {
  what=$1
  shift
  tries=0
  until "$@" 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -lt $((limit_s * 50)) ] || fail "$what: not within $limit_s s"
    sleep 0.02
  done
}
# The toucher has said so in its status: a member's name, with its value if need be.
says() { grep -q "\"$1" $status; }
knows_limit() { says limit_us && ! says 'limit_us": 0.000'; }

connect_hosts() {
  mkdir -p /var
  ln -s /run /var/run
  $ip netns add source
  $ip netns add destination
  $ip link add source netns source type veth peer name destination netns destination
  $ip -n source addr add $source_ip/24 dev source
  $ip -n destination addr add $destination_ip/24 dev destination
  for host in source destination; do
    $ip -n $host link set lo up
    $ip -n $host link set $host up
  done
  wait_until "reach the other host" $in_destination ping -q -c 1 -W 1 $source_ip >/dev/null
}

# The source's side: starts the process and dumps it; the dump ends when all pages have been fetched.
criu_source() {
  $setsid "$toucher" "$mib" $status moved $moved </dev/null >/tmp/toucher.log 2>&1 &
  process=$!
  wait_until "learn how long a touch may take" knows_limit
  cd /tmp || exit 1
  now_s >/tmp/command_s
  # A byte comes through the descriptor once the process is frozen and its pages are served.
  $criu dump -t $process --lazy-pages --address $source_ip --port 9999 -D $images -o dump.log \
    --status-fd 3 3>/tmp/served
}

# The destination's side: restores it, waits for its pages, and stops it.
criu_destination() {
  echo 3000 >/proc/sys/kernel/ns_last_pid # so that the process's own number is free
  cd /tmp || exit 1
  $criu lazy-pages --page-server --address $source_ip --port 9999 -D $images -W $work -o lazy.log &
  fetching=$!
  wait_until "start lazy-pages" [ -S $work/lazy-pages.socket ]
  $criu restore -d --lazy-pages -D $images -W $work -o restore.log || return 1
  wait $fetching || return 1
  now_s >/tmp/complete_s
  kill -TERM "$(pidof process-toucher)"
  wait_until "check the memory" says wrong_words
}

frozen_or_over() { [ -s /tmp/served ] || ! kill -0 $dumping; }

criu_arm() {
  rm -rf $images $work /tmp/served $moved
  mkdir $images $work
  # A number of a process can be there twice in two namespaces: the source's stays until all pages
  # have been fetched.
  $in_source "$unshare" --pid --mount --fork --mount-proc sh /script criu_source &
  dumping=$!
  wait_until "freeze the process" frozen_or_over
  [ -s /tmp/served ] || fail "freeze the process"
  touch $moved
  $in_destination "$unshare" --pid --mount --fork --mount-proc sh /script criu_destination ||
    fail "restore the process"
  wait $dumping || fail "dump the process"
  measured criu-lazy-pages "\"command_s\": $(cat /tmp/command_s), \"complete_s\": $(cat /tmp/complete_s)"
}

fetched_or_over() { says total_ms || ! kill -0 $process; }

libpostcopy_arm() {
  $in_source "$page_server" "$mib" $source_ip:9998 >/tmp/page_server.log 2>&1 &
  serving=$!
  wait_until "start the page server" grep -q listening /tmp/page_server.log
  $in_destination "$toucher" "$mib" $status fetch $source_ip:9998 >/tmp/toucher.log 2>&1 &
  process=$!
  wait_until "learn how long a touch may take" knows_limit
  kill -USR1 $process
  wait_until "fetch the memory" fetched_or_over
  kill -TERM $process
  wait $process
  says wrong_words || fail "touch the memory"
  kill $serving
  wait $serving
  measured libpostcopy-process '"command_s": null, "complete_s": null'
}

measured() {
  echo
  echo "MEASURED {\"arm\": \"$1\", \"run\": $run, $2, \"status\": $(cat $status)}"
}

if [ $# -gt 0 ]; then
  "$1"
  exit
fi
connect_hosts
run=1
while [ $run -le "$runs" ]; do
  for arm in criu_arm libpostcopy_arm; do
    rm -f $status /tmp/*.log
    $arm
  done
  run=$((run + 1))
done
