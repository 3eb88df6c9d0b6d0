"""The QEMU releases that the lab can run: Debian 12's own, which is installed, and the one of its
backports, which is unpacked beside it (they are one package, so only one can be installed).
"""

import dataclasses
import os
import re
import subprocess

from . import packages
from .commands import LabError

INSTALLED, BACKPORTED = "7.2", "10.0"


@dataclasses.dataclass(frozen=True)
class Release:
    name: str
    program: str = "qemu-system-x86_64"
    firmware: tuple = ()  # folders for -L; none: where the program looks by itself


def release(name, cache=None):
    """The Release of that name; downloads it the first time if it is not installed.

    Several processes may call it at once. LabError names the step that failed.
    """
    if name == INSTALLED:
        return Release(INSTALLED)
    if name != BACKPORTED:
        raise LabError(f"find QEMU {name}: the lab knows {INSTALLED} and {BACKPORTED}")
    cache = packages.cache_directory() if cache is None else cache
    with packages.CacheLock(cache):
        tree = packages.unpacked_backports(
            ["qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios"], cache)
    program = tree / "usr/bin/qemu-system-x86_64"
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    if not re.search(rf"version {re.escape(name)}\b", version.stdout):
        raise LabError(f"find QEMU {name}: {program} says "
                       f"{(version.stdout or version.stderr).strip().splitlines()[:1]}")
    return Release(name, str(program),
                   (str(tree / "usr/share/qemu"), str(tree / "usr/share/seabios")))


def of_hosts(hosts, names=None):
    """The Release of each host, by host. `names` is one name for all, or one a host with colons
    between; default: POSTCOPY_LAB_QEMU, or the installed one."""
    names = (names or os.environ.get("POSTCOPY_LAB_QEMU") or INSTALLED).split(":")
    if len(names) not in (1, len(hosts)):
        raise LabError(f"find the QEMUs of hosts {', '.join(hosts)}: {':'.join(names)} names "
                       f"{len(names)}")
    return {host: release(names[i % len(names)]) for i, host in enumerate(hosts)}
