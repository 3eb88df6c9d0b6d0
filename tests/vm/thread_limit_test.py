#!/usr/bin/env python3
"""A daemon that may make no more threads refuses what it is asked, goes on, and keeps no VM reserved: as
soon as it may make some again, the same VM is relocated.
"""

import contextlib
import os
import pathlib
import unittest

import support
from lab import guest, qemu
from support import OK

_FOLDERS = ("/sys/fs/cgroup/pids", "/sys/fs/cgroup")  # of version 1, of version 2


class ThreadLimit(support.StageTest):
    config = qemu.Config(memory_mib=256, guest=guest.Parameters(files_mib=32, check_mib=64))

    @contextlib.contextmanager
    def no_more_threads(self, host):
        """The daemon of `host` keeps the threads that it has and gets no other."""
        daemon = self.stage.hosts[host].pid
        folder = None
        for parent in map(pathlib.Path, _FOLDERS):
            with contextlib.suppress(OSError):
                made = parent / f"postcopy-test-{daemon}"
                made.mkdir()
                if (made / "pids.max").exists():
                    folder = made
                    break
                made.rmdir()
        if folder is None:
            raise unittest.SkipTest("no cgroup with a limit of processes can be made here")
        try:
            (folder / "cgroup.procs").write_text(str(daemon))
            (folder / "pids.max").write_text("1")
            yield
            (folder / "pids.max").write_text("max")
            (folder.parent / "cgroup.procs").write_text(str(daemon))
        finally:
            with contextlib.suppress(OSError):
                os.rmdir(folder)

    def refused_and_then_relocated(self, host):
        with self.stage.vm("a") as a, self.stage.vm("b", incoming=True) as b:
            a.wait_ready()
            with self.no_more_threads(host):
                refused = self.stage.relocate()
                self.assertNotEqual(refused.code, OK)
                self.assertTrue(self.stage.hosts[host].running())
                self.assertEqual(a.qmp.command("query-status")["status"], "running")
                print(f"at {host}: {refused.message}")
            ended = self.stage.relocate()
            self.assertEqual(ended.code, OK, ended.message)
            self.assertTrue(b.running())

    def test_at_the_source(self):
        self.refused_and_then_relocated("a")

    def test_at_the_destination(self):
        self.refused_and_then_relocated("b")


if __name__ == "__main__":
    support.main()
