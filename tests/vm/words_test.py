#!/usr/bin/env python3
"""What postcopyctl says when something cannot be done: what it is, on which host, and what can be done
instead.
"""

import support
from lab import guest, qemu
from support import MISFIT, NO_SUCH_VM, OK, VM, await_that, ctl

# Nobody talks to these guests.
_NO_NETWORK = guest.Parameters(files_mib=0, check_mib=0)


class Words(support.StageTest):
    config = qemu.Config(memory_mib=128, guest=_NO_NETWORK)

    def assert_says(self, ended, code, *words, never=()):
        print(ended)
        self.assertEqual(ended.code, code, ended.message)
        for word in words:
            self.assertIn(word, ended.message)
        for word in never:
            self.assertNotIn(word, ended.message)

    def test_a_relocation_to_the_host_itself(self):
        with self.stage.vm("a"):
            self.assert_says(self.stage.relocate(destination="a"), MISFIT,
                             "source and destination are the same host", "--as NAME",
                             never=["another relocation"])

    def test_a_refusal_of_the_other_host_does_not_speak_of_this_one(self):
        with self.stage.vm("a"):
            self.assert_says(self.stage.relocate(), MISFIT, "destination", self.stage.hosts["b"].address,
                             "none of that name waits there", never=["this host"])

    def test_a_vm_that_does_not_exist(self):
        for command in ("watch", "stats", "cancel"):
            self.assert_says(ctl(self.stage.hosts["a"], command, "nosuch"), NO_SUCH_VM,
                             "no VM named nosuch", never=["takes part"])
        with self.stage.vm("a"):
            self.assert_says(ctl(self.stage.hosts["a"], "watch", VM), NO_SUCH_VM,
                             "takes part in no relocation")

    def test_after_the_switch(self):
        at_a, at_b = self.stage.hosts["a"], self.stage.hosts["b"]
        at_a.faults = ["delay-bulk=3"]
        at_b.faults = ["delay-bulk=3"]
        for host in (at_a, at_b):
            host.restart()
        self.addCleanup(self.stage.renew_daemons)
        with self.stage.vm("a"), self.stage.vm("b", incoming=True):
            relocating = self.stage.relocating()
            await_that("it runs at b", lambda: ctl(at_b, "stats", VM).answer.get("state") == "running")
            self.assert_says(ctl(at_b, "cancel", VM), MISFIT, "too late", "runs here",
                             never=["cancel it at the source"])
            listed = ctl(at_a, "list").answer
            self.assertFalse(listed["may_switch_off"])
            self.assertEqual([each["vm"] for each in listed["owed"]], [VM])
            self.assertTrue(ctl(at_b, "list").answer["may_switch_off"])
            states = [ctl(at, "list").answer["vms"][0]["guest_state"] for at in (at_a, at_b)]
            self.assertEqual(states, ["postmigrate, migration completed", "running"])
            there = ctl(at_b, "stats", VM).answer
            self.assertIsNone(there["downtime_ms"])
            self.assertGreater(there["after_switch_ms"], 0)
            self.assertEqual(relocating.end().code, OK)
            self.assertTrue(ctl(at_a, "list").answer["may_switch_off"])
            self.assert_says(ctl(at_a, "release", VM), MISFIT, "has ended already", "--keep-source")


if __name__ == "__main__":
    support.main()
