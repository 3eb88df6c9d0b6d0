#!/usr/bin/env bash
# in_chroot.sh TARBALL ARCHIVES FOLDER: installs the packages in FOLDER into the bare Debian in TARBALL,
# uses them, and removes them. ARCHIVES keeps what apt downloads for the next time.
#
# To be run in a mount and process namespace of its own (debian_test.py), whose end undoes every mount.
set -euo pipefail

tarball=$1 archives=$2 folder=$3
root=/mnt
state=$root/var/lib/postcopy

fail() {
  echo "in_chroot.sh: $*" >&2
  exit 1
}

# Before a command: runs it in the chroot.
enter_root=(chroot "$root" /usr/bin/env LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive
            PATH=/usr/sbin:/usr/bin:/sbin:/bin)

in_root() {
  "${enter_root[@]}" "$@"
}

# expect TEXT COMMAND...: what the command says in the chroot contains TEXT.
expect() {
  local text=$1 said
  shift
  said=$(in_root "$@" 2>&1) || fail "$*: $said"
  grep -qF -- "$text" <<<"$said" || fail "$*: says no \"$text\" but: $said"
}

enter() {
  mount -t tmpfs -o mode=0755 tmpfs "$root"
  tar -C "$root" -xpf "$tarball"
  mount -t proc proc "$root/proc"
  mount --bind "$archives" "$root/var/cache/apt/archives"
  mkdir "$root/packages"
  cp "$folder"/*.deb "$root/packages"
  # The network as this machine reaches it.
  cp "$folder/apt.conf" "$root/etc/apt/apt.conf.d/99machine"
  cp -r /etc/apt/auth.conf.d "$root/etc/apt/" 2>/dev/null || true
  cp /etc/resolv.conf /etc/hosts "$root/etc/"
}

apt_install() {
  in_root apt-get -qq -y -o Dpkg::Use-Pty=0 -o APT::Keep-Downloaded-Packages=true \
    install --no-install-recommends "$@" >"$folder/apt.log" 2>&1
}

install_all() {
  local -a names
  mapfile -t names < <(cd "$root" && printf '/%s\n' packages/*.deb)
  # man-db and systemd: what they ask of the packages.
  apt_install "${names[@]}" man-db systemd && return
  # Lists that are older than the mirror.
  in_root apt-get -qq update && apt_install "${names[@]}" man-db systemd && return
  cat "$folder/apt.log" >&2
  fail "the packages can't be installed"
}

check_files() {
  local page file
  [ -e "$root/etc/postcopy/uffd-server.toml" ] || fail "no configuration file"
  [ "$(in_root systemctl is-enabled uffd-server)" = disabled ] || fail "the service is enabled"
  in_root systemd-analyze verify uffd-server.service || fail "the unit is not as systemd wants it"
  for page in "1 postcopyctl" "5 uffd-server.toml" "8 uffd-server" "3 libpostcopy" \
    "3 postcopy_attach"; do
    # shellcheck disable=SC2086
    expect /usr/share/man man -w $page
  done
  while read -r file; do
    if in_root ldd "$file" | grep 'not found'; then fail "$file lacks libraries"; fi
  done < <(printf '%s\n' /usr/sbin/uffd-server /usr/bin/postcopyctl; cd "$root" &&
    find usr/lib -name 'libpostcopy*.so*' -printf '/%p\n')
  expect "libpostcopy.so.1 (" ldconfig -p
  for file in share/postcopy/postcopyctl.schema.json share/doc/uffd-server/README.md \
    share/doc/uffd-server/operations.md share/doc/uffd-server/json.md; do
    [ -s "$root/usr/$file" ] || fail "no /usr/$file"
  done
  ! in_root dpkg -s uffd-server | grep -q example || fail "the maintainer is an example"
}

check_programs() {
  local version
  version=$(in_root dpkg -s uffd-server | sed -n 's/^Version: //p')
  expect "$version" uffd-server --version
  expect "$version" postcopyctl --version
  expect relocate postcopyctl --help
  # The loader finds the hook by its name, and the hook says nothing in a program that is no VMM.
  [ -z "$(in_root env LD_PRELOAD=libpostcopy-preload.so /bin/true 2>&1)" ] || fail "the hook complains"
  [ -z "$(in_root env LD_PRELOAD=libpostcopy-preload.so POSTCOPY_VM=web1 /bin/true 2>&1)" ] ||
    fail "the hook complains"
  expect libpostcopy-preload env LD_PRELOAD=libpostcopy-preload.so grep -m 1 libpostcopy /proc/self/maps
}

# Runs on the loopback of a network namespace: no port of this machine is taken.
check_daemon() {
  local log=$folder/daemon.log said='' pid
  "${enter_root[@]}" uffd-server --listen 127.0.0.1:7700 --runtime-dir /run/try \
    --state-dir /var/lib/try >"$log" 2>&1 &
  pid=$!
  until grep -q ' ready, ' "$log"; do
    kill -0 "$pid" 2>/dev/null || fail "the daemon ended: $(cat "$log")"
    sleep 0.1
  done
  said=$(in_root postcopyctl list 2>&1) || fail "postcopyctl list: $said"
  [[ $said == NAME* ]] || fail "postcopyctl list: $said; the daemon: $(cat "$log")"
  [ -S "$root/run/try/agent.sock" ] || fail "no agent.sock"
  kill "$pid"
  wait "$pid" || fail "the daemon does not end well: $(cat "$log")"
  rm -r "$root/run/try" "$root/var/lib/try"

  echo 'bulk-lanes = 99' >>"$root/etc/postcopy/uffd-server.toml"
  said=$(in_root uffd-server 2>&1) && fail "a bad configuration file is taken"
  [[ $said == *"/etc/postcopy/uffd-server.toml, line "*", key bulk-lanes: "* ]] || fail "says: $said"
}

# What is of these packages by its name, but for the notes of dpkg, apt and man.
leftovers() {
  find "$root" -xdev \( -iname '*postcopy*' -o -iname '*uffd-server*' \) \
    -not -path "$root/packages/*" -not -path "$root/var/lib/dpkg/*" \
    -not -path "$root/var/cache/man/*" -printf '/%P\n' | sort
}

check_removal() {
  local said expected
  in_root systemctl --quiet enable uffd-server
  mkdir "$state"
  touch "$state/record.json" "$state/.lock"
  in_root dpkg -r libpostcopy-dev libpostcopy1 uffd-server >/dev/null
  # Configuration, records, and that an administrator has enabled it.
  expected=$(printf '%s\n' /etc/postcopy /etc/postcopy/uffd-server.toml \
    /etc/systemd/system/multi-user.target.wants/uffd-server.service \
    /etc/systemd/system/uffd-server.service /var/lib/postcopy)
  said=$(leftovers | grep -v /deb-systemd-helper)
  [ "$said" = "$expected" ] || fail "after the removal there is: $said"
  said=$(in_root dpkg -P libpostcopy-dev libpostcopy1 uffd-server 2>&1 >/dev/null) ||
    fail "purge: $said"
  [[ $said == *"records in /var/lib/postcopy stay"* ]] || fail "the purge says: $said"
  [ "$(leftovers)" = /var/lib/postcopy ] || fail "after the purge there is: $(leftovers)"

  rm "$state/record.json"
  touch "$state/.lock"  # no record
  install_all
  in_root dpkg -P libpostcopy-dev libpostcopy1 uffd-server >/dev/null
  [ -z "$(leftovers)" ] || fail "after the second purge there is: $(leftovers)"
}

if [ "${4:-}" = daemon ]; then
  ip link set lo up
  check_daemon
  exit 0
fi
enter
install_all
check_files
check_programs
unshare --net "$0" "$tarball" "$archives" "$folder" daemon
check_removal
