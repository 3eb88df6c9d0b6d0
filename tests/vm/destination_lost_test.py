#!/usr/bin/env python3
"""A destination that is gone for good after the hand-over and before the guest ran there: the VM stays fenced
at the source until an operator takes it back."""

from signal import SIGKILL

import support
from owner_watch import OwnershipTest
from support import MISFIT, OK, UNFINISHED, USAGE, VM, await_that, wait_held


class DestinationLost(OwnershipTest):
    def at(self, host, command, *options):
        return support.ctl(self.stage.hosts[host], command, VM, *options)

    def test_an_operator_takes_it_back(self):
        self.stage.renew_daemons(b=["hold-at=owner-recorded"])
        b = self.stage.hosts["b"]
        with self.two_vms() as vms:
            relocating = self.stage.relocating()
            wait_held(b, "owner-recorded")
            wrong = self.at("b", "destination-lost", "--resume")
            self.assertEqual(wrong.code, MISFIT, wrong.message)
            self.assertIn("this host is the destination; ask the source, "
                          f"{self.stage.hosts['a'].address}", wrong.message)
            b.kill(SIGKILL)
            vms["b"].kill()
            ended = relocating.end()
            self.assertEqual(ended.code, UNFINISHED, ended.message)
            asked = self.at("a", "recover").answer
            self.assertEqual(asked["owner"], "unknown")
            self.assertIn(f"postcopyctl destination-lost {VM} --resume", asked["report"])
            self.assertEqual(vms["a"].qmp.command("query-status")["status"], "postmigrate")
            self.assertEqual(self.at("a", "destination-lost").code, USAGE)
            back = self.at("a", "destination-lost", "--resume")
            self.assertEqual(back.code, OK, back.message)
            self.assertIn("was given up by an operator", back.answer["report"])
            self.check_one_owner("a")

            # The host comes back after all, and its record says that it owns the VM.
            b.faults = []
            b.start()
            await_that("it learns what has become of the VM", lambda: "never ran here; it stayed at" in self.at(
                "b", "recover").answer["report"])
            with self.stage.vm("b", incoming=True):
                again = self.stage.relocate()
                self.assertEqual(again.code, OK, again.message)


if __name__ == "__main__":
    support.main()
