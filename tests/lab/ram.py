"""Folders for guests' RAM files, with room for them: on tmpfs, and on hugetlbfs.

Not responsible for the files in it: QEMU makes them. All go when the folder goes.
"""

import os
import pathlib
import shutil
import tempfile

from . import reaper
from .commands import LabError, run


class RamFolder:
    """A context manager; `path` is the folder, on tmpfs, from __enter__ to __exit__.

    Below `parent` (default /dev/shm) if `need_mib` MiB are free there, since a tmpfs that runs full
    ends QEMU with SIGBUS; otherwise a tmpfs of that size is mounted on a temporary folder. LabError
    if that is not permitted.
    """

    def __init__(self, need_mib=2560, parent="/dev/shm"):
        self._need_mib = need_mib
        self._parent = parent
        self._mounted = False
        self.path = None

    def __enter__(self):
        room = os.statvfs(self._parent)
        enough = room.f_bavail * room.f_frsize >= self._need_mib << 20
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="postcopy-lab-",
                                                  dir=self._parent if enough else None))
        reaper.note("folder", self.path)
        os.chmod(self.path, 0o1777)  # as /dev/shm is: QEMUs may run as other users
        if not enough:
            reaper.note("mount", self.path)
            self._mounted = True
            run(["mount", "-t", "tmpfs", "-o", f"size={self._need_mib}m", "tmpfs", str(self.path)],
                what=f"mount a tmpfs of {self._need_mib} MiB for guests' RAM")
        return self

    def __exit__(self, *_):
        if self._mounted:
            reaper.remove("mount", self.path)
            reaper.forget("mount", self.path)
        shutil.rmtree(self.path, ignore_errors=True)
        reaper.forget("folder", self.path)


class HugePages:
    """A context manager: `path` is a hugetlbfs with `mib` MiB in pages of 2 MiB.

    The machine's pool grows by so many pages while it lasts. LabError if the machine has not so much
    free memory in one piece, or no huge pages at all.
    """

    def __init__(self, mib):
        self._pages = mib // 2
        self.path = None

    def __enter__(self):
        pool = reaper.HUGE_PAGE_POOL
        try:
            wanted = int(pool.read_text()) + self._pages
            reaper.note("hugepages", self._pages)
            pool.write_text(str(wanted))
            lacking = wanted - int(pool.read_text())
        except OSError as error:
            raise LabError(f"grow the pool of huge pages: {error}") from None
        if lacking > 0:
            self._shrink(self._pages - lacking)
            raise LabError(f"grow the pool of huge pages by {self._pages}: {lacking} are lacking")
        self.path = pathlib.Path(tempfile.mkdtemp(prefix="postcopy-lab-huge-"))
        reaper.note("folder", self.path)
        reaper.note("mount", self.path)
        run(["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "hugetlbfs", str(self.path)],
            what="mount a hugetlbfs for guests' RAM")
        return self

    def _shrink(self, pages):
        reaper.remove("hugepages", pages)
        reaper.forget("hugepages", self._pages)

    def __exit__(self, *_):
        reaper.remove("mount", self.path)
        reaper.forget("mount", self.path)
        shutil.rmtree(self.path, ignore_errors=True)
        reaper.forget("folder", self.path)
        self._shrink(self._pages)
