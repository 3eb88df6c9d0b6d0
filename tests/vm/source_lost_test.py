#!/usr/bin/env python3
"""A source that is gone for good while memory arrives: the VM waits until somebody says what becomes of
it, an operator or the daemon's options, and never sees a wrong word in place of what was lost."""

import contextlib
import json
import signal
import time

import support
from lab import checker, guest, qemu
from support import MISFIT, OK, UNFINISHED, VM, LabError, await_that

LINK_MBIT = 100  # so that memory takes some seconds to arrive
LAST_MBIT = 20   # from shortly before enough of it has: what is missing stays so until the source is killed
LAST_SHARE = 0.1
LOST_AFTER_S = 2
# Until the daemon has noticed, waited and ended QEMU, on a loaded machine.
ENDED_WITHIN_S = 15


class SourceLost(support.StageTest):
    config = qemu.Config(memory_mib=256, guest=guest.Parameters(
        files_mib=32, check_mib=16, check_pause_us=1000, check_order="random"))

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.stage.save_ready_guest()

    def begin(self, *options):
        """Both daemons start anew, that of host b with `options`."""
        self.stage.hosts["b"].options = [str(option) for option in options]
        try:
            self.stage.renew_daemons()
        except LabError as error:
            self.skip_without_poison(str(error))
            raise

    def skip_without_poison(self, message):
        """Skips the rest of a test where a kernel before Linux 6.6 has refused."""
        if "has no UFFDIO_POISON" in message:
            self.skipTest("missing: UFFDIO_POISON (Linux 6.6)")

    @contextlib.contextmanager
    def without_its_source(self, share):
        """The VM at the destination when so large a share of its memory has arrived, and the source's daemon
        and QEMU have been killed since."""
        for name in ("a", "b"):
            self.stage.network.shape(name, LINK_MBIT)
            self.addCleanup(self.stage.network.unshape, name)
        with self.stage.ready_vm("a") as a, self.stage.vm("b", incoming=True) as b:
            relocating = self.stage.relocating()
            await_that("memory arrives", lambda: self.arrived_share() > share - LAST_SHARE)
            self.stage.network.shape("a", LAST_MBIT)
            for action in ("--poison", "--kill"):
                early = self.source_lost(action)
                self.assertEqual(early.code, MISFIT, early.message)
                self.assertIn("is not out of reach", early.message)
            wrong = support.ctl(self.stage.hosts["a"], "source-lost", VM, "--kill")
            self.assertEqual(wrong.code, MISFIT, wrong.message)
            self.assertIn(f"ask the destination, {self.stage.hosts['b'].address}", wrong.message)
            await_that("enough has arrived", lambda: self.arrived_share() > share)
            self.stage.hosts["a"].kill()
            a.kill()
            self.assertLess(self.arrived_share(), 1, "everything had arrived: nothing is tested")
            self.assertEqual(relocating.end().code, UNFINISHED)
            yield b

    def source_lost(self, action):
        return support.ctl(self.stage.hosts["b"], "source-lost", VM, action)

    def stats(self):
        return support.ctl(self.stage.hosts["b"], "stats", VM).answer

    def arrived_share(self):
        answer = self.stats()
        arrives = answer.get("state") == "running" and answer["data_bytes"]
        return answer["present_bytes"] / answer["data_bytes"] if arrives else 0

    def await_waiting(self):
        await_that("the destination waits for its source",
                   lambda: (self.stats().get("error") or "").startswith(
                       "the source cannot be reached, the VM waits"))

    def record(self):
        path, = self.stage.hosts["b"].state_dir.glob("*.json")
        return json.loads(path.read_text().splitlines()[0])["mark"]

    def recover(self):
        return support.ctl(self.stage.hosts["b"], "recover", VM).answer

    def outcome(self, vm, timeout_s=30):
        """What the guest does without what was lost: whether it goes on, without a wrong word; otherwise its
        QEMU has ended by SIGBUS."""
        deadline = time.monotonic() + timeout_s
        last = None
        while vm.running():
            with contextlib.suppress(LabError):
                status = checker.status(self.stage.network, self.config.guest.address, timeout_s=2)
                self.assertEqual(status.errors, 0)
                if last is not None and status.passes > last + 2:
                    return True
                last = status.passes if last is None else last
            self.assertLess(time.monotonic(), deadline,
                            f"it neither goes on nor ends; console: {vm.console()[-500:]}")
        self.assertEqual(vm.exit_status, -signal.SIGBUS)
        return False

    def test_an_operator_ends_it(self):
        self.begin()
        with self.without_its_source(0.2) as vm:
            self.await_waiting()
            self.assertTrue(vm.running())
            ended = self.source_lost("--kill")
            self.assertEqual(ended.code, OK, ended.message)
            self.assertIn("the source was lost: the VM has been ended as in a crash",
                          ended.answer["report"])
            self.assertEqual(vm.wait_exit(), -signal.SIGKILL)
            self.assertEqual(self.stats()["state"], "failed")
            self.assertEqual(self.stats()["error"], ended.answer["report"])
            self.assertEqual(self.record(), "owner")
            self.assertIn(ended.answer["report"], self.recover()["report"])
            late = self.source_lost("--poison")
            self.assertEqual(late.code, MISFIT)
            self.assertIn("its memory is not arriving, the session is failed", late.message)

    def poison(self, share):
        """Whether the guest goes on after what is missing when `share` has arrived was poisoned."""
        self.begin()
        with self.without_its_source(share) as vm:
            self.await_waiting()
            ended = self.source_lost("--poison")
            if ended.code == MISFIT:
                self.assertTrue(vm.running())
                self.assertEqual(self.record(), "owner")
                self.skip_without_poison(ended.message)
            self.assertEqual(ended.code, OK, ended.message)
            report = ended.answer["report"]
            amount = r"\d+ pages \([\d.]+ [KM]iB\) of "
            self.assertRegex(
                report, f"^the source was lost: ({amount}VM web1 never arrived and are poisoned; the VM runs "
                        r"on without them|the VM has ended as in a crash: its VMM \(process \d+\) ended "
                        f"while {amount}its memory that never arrived were being poisoned, by SIGBUS if it "
                        "touched them)$")
            goes_on = self.outcome(vm)
            self.assertFalse(goes_on and "ended as in a crash" in report)
            self.assertEqual(self.record(), "incomplete")
            self.assertEqual(self.stats()["state"], "failed")
            self.assertEqual(self.stats()["error"], report)
            host = self.stage.hosts["b"]
            if goes_on:
                onwards = support.ctl(host, "relocate", VM, "--to", self.stage.hosts["a"].address)
                self.assertEqual(onwards.code, MISFIT, onwards.message)
                self.assertIn("a part of its memory was lost for good", onwards.message)
            # The next daemon knows it too, whether the VM has ended meanwhile or not.
            host.restart()
            await_that("the daemon tells what was lost", lambda: any(
                words in self.recover().get("report", "")
                for words in (report, "a part of its memory was lost for good")))
            if goes_on:
                goes_on = self.outcome(vm)
            self.assertEqual(self.record(), "incomplete")
            print(f"{share:.0%} had arrived; {report}; the guest "
                  f"{'goes on' if goes_on else 'has ended by SIGBUS'}", flush=True)

    def test_an_operator_lets_it_run_on_with_little(self):
        self.poison(0.2)

    @support.long_run
    def test_an_operator_lets_it_run_on_with_most(self):
        self.poison(0.9)

    def test_the_daemons_options_end_it(self):
        self.begin("--source-lost", "kill", "--source-lost-after", LOST_AFTER_S)
        with self.without_its_source(0.2) as vm:
            began = time.monotonic()
            self.assertEqual(vm.wait_exit(ENDED_WITHIN_S), -signal.SIGKILL)
            took = time.monotonic() - began
            print(f"{took:.1f} s after the source was killed the VM has ended", flush=True)
            await_that("the session has failed", lambda: self.stats().get("state") == "failed")
            self.assertIn("the source was lost: the VM has been ended", self.stats()["error"])

    def test_the_daemons_options_let_it_run_on(self):
        self.begin("--source-lost", "poison", "--source-lost-after", LOST_AFTER_S)
        with self.without_its_source(0.5) as vm:
            await_that("the session has failed", lambda: self.stats().get("state") == "failed")
            self.assertRegex(self.stats()["error"], "never arrived (and are|were being) poisoned")
            self.assertEqual(self.record(), "incomplete")
            self.outcome(vm)


if __name__ == "__main__":
    support.main()
