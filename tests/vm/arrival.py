"""A relocation that something happens to while its memory arrives: what tests of that share.

The memory arrives for seconds over a slow link, the guest's checker reads and writes all the while.
Not responsible for what happens, nor for what it has to come to.
"""

import time

import support
from lab import checker, guest, qemu
from support import OK, VM, await_that

LINK_MBIT = 200  # so that memory takes some seconds to arrive


class ArrivalTest(support.StageTest):
    config = qemu.Config(memory_mib=512, guest=guest.Parameters(
        files_mib=48, check_mib=64, check_pause_us=1000, check_order="random"))

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.stage.save_ready_guest()
        host = cls.stage.hosts["b"]
        host.stop()
        cls.traces = cls.stage.folder / "traces"
        host.options = ["--trace-folder", cls.traces]
        host.start()

    def relocated_while(self, disturb, code=OK, arrived_mib=8):
        """Relocates a guest and calls `disturb` when `arrived_mib` of its memory are there; postcopyctl ends
        with `code`, and every word that the guest checks is right afterwards. The last figures, and when
        it resumed (seconds since the epoch)."""
        network = self.stage.network
        for name in ("a", "b"):
            network.shape(name, LINK_MBIT)
            self.addCleanup(network.unshape, name)
        with self.stage.ready_vm("a"), self.stage.vm("b", incoming=True) as b:
            monitor = b.qmp  # connected now: events are seen from then on
            began = time.time()
            relocating = self.stage.relocating()
            await_that("memory arrives", lambda: self.arrived_bytes() >= arrived_mib << 20)
            disturb()
            for name in ("a", "b"):  # what is left need not take its time
                network.unshape(name)
            ended = relocating.end(timeout_s=120)
            self.assertEqual(ended.code, code, ended.message)
            # A daemon that was killed knows of the session when its VMM has registered.
            await_that("the source's daemon knows of it", lambda: support.ctl(
                self.stage.hosts["a"], "stats", VM).code == OK)
            watched = support.ctl(self.stage.hosts["a"], "watch", VM, timeout_s=120)
            self.assertEqual(watched.code, OK, watched.message)
            resumed = monitor.wait_event("RESUME", after=began).time
            status = checker.wait_full_passes(network, self.config.guest.address, 2)
            self.assertEqual(status.errors, 0)
        return watched.answer, resumed

    def arrived_bytes(self):
        """What has arrived; -1 before the guest runs at the destination."""
        answer = support.ctl(self.stage.hosts["b"], "stats", VM).answer
        return (answer.get("present_bytes") or 0) if answer.get("state") == "running" else -1
