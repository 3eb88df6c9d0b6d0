#!/usr/bin/env python3
"""Twenty hops (POSTCOPY_HOPS) A -> B -> A -> … with the guest's checker at work over 512 MiB: no wrong word.

Each hop runs to commit, into a QEMU newly started with -S -incoming defer, and the QEMU it came
from has ended. The link is shaped so that the guest outruns the bulk: at least 1,000 pages of each
hop come on demand.
"""

import contextlib
import os
import statistics
import time

import support
from lab import checker, guest, qemu
from support import OK

_HOPS = int(os.environ.get("POSTCOPY_HOPS") or 20)
_FEWEST_FAULTS = 1000
_LINK_MBIT = 2500


class Hops(support.StageTest):
    config = qemu.Config(memory_mib=768, guest=guest.Parameters(
        files_mib=0, check_mib=512, check_pause_us=1000, check_order="random"))

    def test_many_hops_without_a_wrong_word(self):
        stage = self.stage
        for host in "ab":
            stage.network.shape(host, _LINK_MBIT)
        with contextlib.ExitStack() as stack:
            source = stack.enter_context(stage.vm("a"))
            source.wait_ready()
            downtimes = []
            for hop in range(1, _HOPS + 1):
                destination = stack.enter_context(
                    stage.vm("b" if source.host == "a" else "a", incoming=True))
                downtimes.append(self.hop(hop, source, destination))
                source = destination
            status = checker.wait_full_passes(stage.network, self.config.guest.address, 2,
                                              timeout_s=180)
            print(f"{_HOPS} hops, downtime median {statistics.median(downtimes):.1f} ms, most "
                  f"{max(downtimes):.1f} ms; the checker's {status.passes} passes over "
                  f"{status.mib} MiB found {status.errors} errors")
            self.assertEqual(status.errors, 0, f"first at {status.first_error_address}")
            for host in stage.hosts.values():
                self.assertNotIn("Sanitizer", host.log())

    def hop(self, number, source, destination):
        """One relocation to commit; its downtime in ms."""
        began = time.monotonic()
        ended = self.stage.relocate(source=source.host, destination=destination.host)
        self.assertEqual(ended.code, OK, f"hop {number}: {ended.message}")
        answer = ended.answer
        print(f"hop {number:2} {source.host} -> {destination.host}: "
              f"{answer['faults']} faults, p50 {answer['fault_p50_us']:.0f} us, "
              f"p99 {answer['fault_p99_us']:.0f} us, downtime {answer['downtime_ms']:.1f} ms, "
              f"{time.monotonic() - began:.1f} s", flush=True)
        source.wait_exit()
        self.assertEqual(destination.qmp.command("query-status")["status"], "running")
        self.assertGreaterEqual(answer["faults"], _FEWEST_FAULTS, f"hop {number}")
        source.__exit__()  # its RAM file goes now rather than at the end
        return answer["downtime_ms"]


if __name__ == "__main__":
    support.main()
