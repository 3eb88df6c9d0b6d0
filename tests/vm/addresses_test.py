#!/usr/bin/env python3
"""What daemons tell each other of where they can be reached, on hosts that listen in other ways than at
one address; and the downtime, which depends on neither host's wall clock.
"""

import support
from lab import guest, qemu
from support import MISFIT, OK, VM, ctl

# Nobody talks to these guests.
_NO_NETWORK = guest.Parameters(files_mib=0, check_mib=0)


class Addresses(support.StageTest):
    config = qemu.Config(memory_mib=128, guest=_NO_NETWORK)

    def listen(self, *addresses):
        for host in self.stage.hosts.values():
            host.listen = [address.replace("OWN", host.address) for address in addresses]
            host.restart()

    def tearDown(self):
        self.listen("OWN")

    def relocate(self):
        with self.stage.vm("a"), self.stage.vm("b", incoming=True):
            ended = self.stage.relocate()
            there = ctl(self.stage.hosts["b"], "stats", VM).answer
        return ended, there

    def assert_works(self):
        ended, there = self.relocate()
        self.assertEqual(ended.code, OK, ended.message)
        self.assertEqual(there["peer"], self.stage.hosts["a"].address)
        self.assertEqual(ended.answer["peer"], self.stage.hosts["b"].address)
        return ended.answer

    def test_a_daemon_that_listens_everywhere_tells_the_address_on_the_way_to_its_peer(self):
        self.listen("0.0.0.0")
        self.assert_works()

    def test_of_several_addresses_loopback_is_not_told_to_another_host(self):
        self.listen("127.0.0.1", "OWN")
        self.assert_works()

    def test_a_daemon_that_others_cannot_reach_refuses_before_anything_stops(self):
        a = self.stage.hosts["a"]
        a.listen = ["127.0.0.1"]
        address, a.address = a.address, "127.0.0.1:7700"
        self.addCleanup(setattr, a, "address", address)
        a.restart()
        ended, _ = self.relocate()
        self.assertEqual(ended.code, MISFIT, ended.message)
        self.assertIn("listens on 127.0.0.1:7700 only, which", ended.message)
        self.assertIn("set listen", ended.message)
        a.address = address

    def test_the_downtime_is_what_the_wall_clock_of_one_machine_says(self):
        answer = self.assert_works()
        by_stamps = (answer["resumed_at_us"] - answer["stopped_at_us"]) / 1000
        print(f"downtime {answer['downtime_ms']:.2f} ms, by QEMU's stamps {by_stamps:.2f} ms")
        # The answer's way, and what the daemons take for it.
        self.assertGreater(answer["downtime_ms"], by_stamps - 1)
        self.assertLess(answer["downtime_ms"], by_stamps + 20)


if __name__ == "__main__":
    support.main()
