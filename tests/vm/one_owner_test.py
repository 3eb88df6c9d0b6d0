#!/usr/bin/env python3
"""Whoever dies at whichever step of the switch, the VM has at most one owner, and postcopyctl says
what became of it.

In each case one daemon is held at a step (fault plan hold-at), one QEMU is killed, the daemon goes
on. The guest then runs at exactly one side with its memory intact, or has ended as in a crash,
where the killed process alone had its device state; and the two never ran at once.
"""

import dataclasses

import support
from owner_watch import OwnershipTest
from support import OK, ROLLED_BACK, UNFINISHED, go_on, wait_held

NOWHERE = ""
CRASH = "has ended as in a crash"


@dataclasses.dataclass(frozen=True)
class Case:
    held: str     # host whose daemon is held
    step: str
    killed: str   # host whose QEMU is killed meanwhile
    runs_at: str  # afterwards
    code: int     # postcopyctl's
    says: str     # part of its complaint
    long: bool = False  # played in the label vm-long only: CI plays each step once, each end at least once


CASES = [
    # Before the device state has left the source's QEMU, that process alone has it.
    Case("a", "opened", "a", NOWHERE, UNFINISHED, CRASH),
    Case("b", "incoming", "a", NOWHERE, UNFINISHED, CRASH, long=True),
    Case("a", "held", "a", NOWHERE, UNFINISHED, CRASH, long=True),
    # Afterwards the source's daemon has it, and the memory.
    Case("a", "taken", "a", "b", OK, ""),
    Case("b", "state-loaded", "a", "b", OK, "", long=True),
    Case("a", "loaded", "a", "b", OK, ""),
    Case("a", "recorded", "a", "b", OK, "", long=True),
    Case("b", "owner-recorded", "a", "b", OK, "", long=True),
    Case("b", "resumed", "a", "b", OK, ""),
    Case("a", "handed-over", "a", "b", OK, "", long=True),
    # Until the destination has recorded that it is the owner, the source goes on.
    Case("a", "opened", "b", "a", ROLLED_BACK, "goes on at the source", long=True),
    Case("b", "incoming", "b", "a", ROLLED_BACK, "goes on at the source"),
    Case("a", "held", "b", "a", ROLLED_BACK, "goes on at the source"),
    Case("a", "taken", "b", "a", ROLLED_BACK, "goes on at the source", long=True),
    Case("b", "state-loaded", "b", "a", ROLLED_BACK, "goes on at the source"),
    Case("a", "loaded", "b", "a", ROLLED_BACK, "goes on at the source", long=True),
    Case("a", "recorded", "b", "a", ROLLED_BACK, "goes on at the source"),
    # It did not run there yet.
    Case("b", "owner-recorded", "b", "a", ROLLED_BACK, "goes on at the source"),
    # It ran there, so what it did since is lost with that process.
    Case("b", "resumed", "b", NOWHERE, UNFINISHED, CRASH, long=True),
    Case("a", "handed-over", "b", NOWHERE, UNFINISHED, CRASH),
]


class OneOwner(OwnershipTest):
    def kill_one(self, case):
        self.stage.renew_daemons(**{case.held: [f"hold-at={case.step}"]})
        holder = self.stage.hosts[case.held]
        with self.two_vms() as vms:
            relocating = self.stage.relocating()
            wait_held(holder, case.step)
            vms[case.killed].kill()
            go_on(holder, case.step)
            ended = relocating.end()
            self.check_one_owner(case.runs_at)
            print(f"{case.step}, QEMU {case.killed} killed: runs at {case.runs_at or 'no host'}; "
                  f"{ended}")
            self.assertEqual(ended.code, case.code, ended.message)
            self.assertIn(case.says, ended.message)


def _add(case):
    name = f"test_{case.step.replace('-', '_')}_QEMU_{case.killed}_killed"

    def play(self):
        self.kill_one(case)
    setattr(OneOwner, name, support.long_run(play) if case.long else play)


for each in CASES:
    _add(each)


if __name__ == "__main__":
    support.main()
