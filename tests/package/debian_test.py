#!/usr/bin/env python3
"""The Debian packages: made by cpack, installed, run and removed in a bare Debian 12.

All of it happens on a tmpfs in a mount and process namespace, so nothing can be left behind however
this ends. in_chroot.sh is what is done there.
"""

import pathlib
import subprocess
import sys
import tempfile

import chroot
from programs import BUILD
from lab import packages
from lab.commands import LabError, run

STEPS = pathlib.Path(__file__).resolve().parent / "in_chroot.sh"


def main():
    with tempfile.TemporaryDirectory() as folder:
        run(["cpack", "--config", str(BUILD / "CPackConfig.cmake"), "-G", "DEB", "-B", folder],
            what="make the packages", timeout_s=300)
        made = sorted(path.name.partition("_")[0] for path in pathlib.Path(folder).glob("*.deb"))
        if made != ["libpostcopy-dev", "libpostcopy1", "uffd-server"]:
            raise LabError(f"make the packages: there are {made}")
        pathlib.Path(folder, "apt.conf").write_text(chroot.apt_settings())
        cache = packages.cache_directory()
        with packages.CacheLock(cache):
            tarball = chroot.bare(cache)
            archives = cache / "chroot-archives"
            (archives / "partial").mkdir(parents=True, exist_ok=True)
            namespace = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
            done = subprocess.run([*namespace, STEPS, tarball, archives, folder], check=False,
                                  timeout=900)
    return done.returncode


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LabError, subprocess.TimeoutExpired) as error:
        sys.exit(f"debian_test: {error}")
