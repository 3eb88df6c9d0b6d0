#!/usr/bin/env python3
"""What the lab needs from Debian: packages to install, and packages only to unpack.

The guest's kernel, nginx and memcached are never installed: an installed kernel would touch the
machine's boot loader and the others would start services. They are downloaded with apt, unpacked
into the lab's cache and used from there. Which files of them go into the guest is guest.py's
business.
"""

import argparse
import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

if __package__ in (None, ""):  # run as a program
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
    __package__ = "lab"
from .commands import LabError, run

# libpcre2-8-0, libssl3 and zlib1g are libraries of the guest's nginx, libevent-2.1-7 and libsasl2-2 of its
# memcached, copied from this machine.
# ovmf, swtpm: firmware and TPM of guests; qemu-utils and e2fsprogs make and check their disks.
TO_RUN = ["qemu-system-x86", "qemu-utils", "ovmf", "swtpm", "e2fsprogs", "nftables",
          "busybox-static", "iproute2", "kmod", "gcc", "libc6-dev",
          "libcrypt1", "libevent-2.1-7", "libfcgi-dev", "libpcre2-8-0", "libsasl2-2", "libssl3", "zlib1g"]
TO_BUILD_LOAD_CLIENT = ["g++", "cmake", "ninja-build", "libcli11-dev", "nlohmann-json3-dev",
                        "libssl-dev"]


def cache_directory():
    """The lab's cache: `POSTCOPY_LAB_CACHE`, or /var/cache/postcopy-lab. Created if missing."""
    path = pathlib.Path(os.environ.get("POSTCOPY_LAB_CACHE") or "/var/cache/postcopy-lab")
    path.mkdir(parents=True, exist_ok=True)
    return path


class CacheLock:
    """Exclusive use of the cache among processes, from __enter__ to __exit__. Blocks."""

    def __init__(self, cache):
        self._path = pathlib.Path(cache) / "lock"

    def __enter__(self):
        self._file = open(self._path, "w")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_):
        self._file.close()


def missing(packages):
    """Those of `packages` that are not installed, in the same order."""
    row = "${Package} ${db:Status-Status}\n"
    asked = subprocess.run(["dpkg-query", "-W", "-f", row, *packages],
                           capture_output=True, text=True, check=False)
    present = {line.split()[0] for line in asked.stdout.splitlines()
               if line.endswith(" installed")}
    return [name for name in packages if name not in present]


def apt_get(*arguments, cwd=None):
    """apt-get without questions and without recommended packages. LabError with apt's own words."""
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    return run(["apt-get", "-q", "-y", "-o", "DPkg::Lock::Timeout=300", *arguments],
               what=f"apt-get {' '.join(arguments)}", timeout_s=1800, cwd=cwd, env=environment)


def install(packages=None):
    """Installs what is missing of `packages` (default: all that the lab needs to run and to build).

    Returns the names installed; does nothing and needs no network when all are there.
    """
    wanted = missing(packages if packages is not None else TO_RUN + TO_BUILD_LOAD_CLIENT)
    if wanted:
        apt_get("update")
        apt_get("install", "--no-install-recommends", *wanted)
    return wanted


def unpacked(package, cache):
    """The folder where `package` lies unpacked in `cache`: downloaded and unpacked when it is not.

    A copy from an earlier run is used as it is, without asking apt. The caller holds CacheLock.
    """
    folder = pathlib.Path(cache) / "unpacked" / package
    if folder.is_dir():
        return folder
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="download-") as scratch:
        os.chmod(scratch, 0o777)  # apt fetches as its own user
        try:
            apt_get("download", package, cwd=scratch)
        except LabError:  # package lists missing or older than the mirror
            apt_get("update")
            apt_get("download", package, cwd=scratch)
        archive = next(pathlib.Path(scratch).glob("*.deb"))
        tree = pathlib.Path(scratch) / "tree"
        run(["dpkg", "-x", str(archive), str(tree)], timeout_s=300)
        os.rename(tree, folder)
    return folder


def unpacked_backports(names, cache):
    """The folder where these packages of Debian 12's backports lie in `cache`, all in one tree.

    Like unpacked(). The machine's own apt sources stay as they are: the suite is asked for from the
    mirror that they name, with lists that are thrown away.
    """
    folder = pathlib.Path(cache) / "unpacked" / f"backports-{names[0]}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="download-") as scratch:
        os.chmod(scratch, 0o777)  # apt fetches as its own user
        scratch = pathlib.Path(scratch)
        (scratch / "lists/partial").mkdir(parents=True)
        (scratch / "sources.list").write_text(_backports_source())
        options = ["-o", f"Dir::Etc::sourcelist={scratch}/sources.list",
                   "-o", "Dir::Etc::sourceparts=-", "-o", f"Dir::State::lists={scratch}/lists"]
        apt_get(*options, "update")
        apt_get(*options, "download", *names, cwd=scratch)
        tree = scratch / "tree"
        for archive in scratch.glob("*.deb"):
            run(["dpkg", "-x", str(archive), str(tree)], timeout_s=300)
        os.rename(tree, folder)
    return folder


def _backports_source():
    """A line of sources.list for bookworm-backports, at the mirror that bookworm comes from."""
    listed = run(["apt-get", "indextargets", "--format", "$(SITE) $(CODENAME) $(COMPONENT)",
                  "Created-By: Packages"], what="ask apt for its sources")
    for line in listed.splitlines():
        site, codename, component = line.split()
        if codename == "bookworm" and component == "main":
            return f"deb {site} bookworm-backports main\n"
    raise LabError("find Debian's backports: apt has no source of bookworm's main component")


def kernel_package(cache):
    """The package that linux-image-cloud-amd64 depends on now, or the newest one in `cache`."""
    kept = sorted((pathlib.Path(cache) / "unpacked").glob("linux-image-*-cloud-amd64"),
                  key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)])
    if kept:
        return kept[-1].name
    for attempt in ("as it is", "updated"):
        if attempt == "updated":
            apt_get("update")
        asked = subprocess.run(["apt-cache", "depends", "linux-image-cloud-amd64"],
                               capture_output=True, text=True, check=False)
        found = re.search(r"Depends: (linux-image-\d\S*)", asked.stdout)
        if found:
            return found.group(1)
    raise LabError("find the guest's kernel: apt knows no linux-image-cloud-amd64")


def main():
    parser = argparse.ArgumentParser(description="Install what the lab needs and is not there.")
    parser.add_argument("--run-only", action="store_true",
                        help="leave out what only the load client's build needs")
    parser.add_argument("--print", action="store_true",
                        help="print what is missing, install nothing")
    parser.add_argument("--clear-cache", action="store_true",
                        help="forget the guest's kernel, nginx and images, to ask apt again")
    arguments = parser.parse_args()
    if arguments.clear_cache:
        with CacheLock(cache_directory()):
            for entry in cache_directory().iterdir():
                if entry.name != "lock":
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    packages = TO_RUN if arguments.run_only else TO_RUN + TO_BUILD_LOAD_CLIENT
    for name in missing(packages) if arguments.print else install(packages):
        print(name)


if __name__ == "__main__":
    try:
        main()
    except LabError as error:
        sys.exit(f"packages.py: {error}")
