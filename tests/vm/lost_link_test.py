#!/usr/bin/env python3
"""A link that breaks while memory arrives costs the VM nothing but time: the destination reaches its
source again by itself, those that wait first, and no byte is wrong. And what is left can be hurried."""

import signal
import statistics
import sys
import time

import support
from arrival import ArrivalTest
from support import OK, UNFINISHED, VM, await_that

OUTAGE_S = 10
# Five times the order's figure.
SERVED_AGAIN_S = 5 * 0.2


class LostLink(ArrivalTest):
    def outage(self, seconds):
        """Takes the source's link away for so long; when it was back."""
        self.stage.network.cut("a")
        time.sleep(seconds)
        self.stage.network.restore("a")
        return time.time()

    def served_after(self, seconds):
        """How long after an outage of `seconds` the first page was there that the guest waited for."""
        back = []
        known = set(self.traces.glob("*.trace"))
        answer, resumed = self.relocated_while(lambda: back.append(self.outage(seconds)))
        self.assertGreaterEqual(answer["interruptions"], 1)
        path, = await_that("the trace is written",
                           lambda: set(self.traces.glob("*.trace")) - known)
        lines = [line.split() for line in path.read_text().splitlines()]
        origin = resumed - next(int(words[1]) for words in lines if words[0] == "resume") / 1e9
        served = sorted(origin + (int(words[1]) + int(words[5])) / 1e9 for words in lines
                        if words[0] == "fault" and words[4] == "asked")
        delay = next(moment for moment in served if moment > back[0]) - back[0]
        print(f"{seconds} s without link: the first page was there {1000 * delay:.0f} ms after its return, "
              f"{answer['interruptions']} interruptions", flush=True)
        return delay

    def test_a_link_that_is_down_for_5_s(self):
        self.assertLess(self.served_after(5), SERVED_AGAIN_S)

    def test_a_link_that_comes_and_goes(self):
        def flap():
            for _ in range(8):
                self.outage(0.4)
                time.sleep(0.6)
        self.relocated_while(flap)

    def test_what_is_left_can_be_hurried_from_either_side(self):
        def hurry():
            for host in self.stage.hosts.values():
                ended = support.ctl(host, "hurry", VM)
                self.assertEqual(ended.code, OK, ended.message)
        self.relocated_while(hurry)
        late = support.ctl(self.stage.hosts["b"], "hurry", VM)
        self.assertNotEqual(late.code, OK)
        self.assertIn("its memory is not arriving, the session is committed", late.message)

    def test_a_source_that_stalls(self):
        daemon = self.stage.hosts["a"]

        def stall():
            daemon.kill(signal.SIGSTOP)
            time.sleep(5)
            daemon.kill(signal.SIGCONT)
        # What watches there falls silent with it.
        answer, _ = self.relocated_while(stall, UNFINISHED)
        self.assertGreaterEqual(answer["interruptions"], 1)


def measure(runs, seconds=OUTAGE_S):
    """The figure that is promised: the median of so many outages of `seconds`."""
    class Measured(LostLink):
        def runTest(self):
            delays = [self.served_after(seconds) for _ in range(runs)]
            print(f"median {1000 * statistics.median(delays):.0f} ms of "
                  f"{', '.join(f'{1000 * delay:.0f}' for delay in delays)}")
    return Measured


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        suite = support.unittest.TestSuite([measure(*map(int, sys.argv[2:]))()])
        result = support.unittest.TextTestRunner().run(suite)
        sys.exit(not result.wasSuccessful())
    support.main()
