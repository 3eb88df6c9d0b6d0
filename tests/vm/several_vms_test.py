#!/usr/bin/env python3
"""Eight guests change places between the two hosts, all at the same time; and what a daemon costs
while its VMs just run.
"""

import contextlib
import time

import support
from lab import checker, guest, qemu
from lab.host import cpu_seconds, footprint
from support import OK

_EACH_WAY = 4
_IDLE_S = 10
_MEMORY_MIB = 192


class Several(support.StageTest):
    config = qemu.Config(memory_mib=_MEMORY_MIB * 4 * _EACH_WAY)  # room for all RAM files

    def guest_of(self, number):
        """Name, and fields of qemu.Config, of the guest with that number."""
        return f"vm{number}", {
            "memory_mib": _MEMORY_MIB, "tap": f"tap{number}", "mac": f"52:54:00:77:01:{number:02x}",
            "guest": guest.Parameters(ip=f"10.77.0.{100 + number}/24", files_mib=0, check_mib=40,
                                      check_pause_us=4000, seed=number)}

    def home(self, number):
        return "a" if number <= _EACH_WAY else "b"

    def away(self, number):
        return "b" if number <= _EACH_WAY else "a"

    def test_eight_guests_change_places_at_the_same_time(self):
        numbers = range(1, 2 * _EACH_WAY + 1)
        before = self.costs()
        with contextlib.ExitStack() as stack:
            vms = {}
            for number in numbers:
                name, fields = self.guest_of(number)
                for host in "ab":
                    self.stage.network.add_tap(host, fields["tap"])
                vms[number] = stack.enter_context(
                    self.stage.vm(self.home(number), name=name, **fields))
            for vm in vms.values():
                vm.wait_ready(timeout_s=120)
            self.report_idle(before)
            arrivals = {}
            for number in numbers:
                name, fields = self.guest_of(number)
                arrivals[number] = stack.enter_context(
                    self.stage.vm(self.away(number), name=name, incoming=True, **fields))
            began = time.monotonic()
            moves = {number: self.stage.relocating(
                vm=f"vm{number}", source=self.home(number), destination=self.away(number))
                for number in numbers}
            answers = {}
            for number, move in moves.items():
                ended = move.end(timeout_s=120)
                self.assertEqual(ended.code, OK, f"vm{number}: {ended.message}")
                answers[number] = ended.answer
            seconds = time.monotonic() - began
            for number in numbers:
                vms[number].wait_exit()
                self.assertEqual(arrivals[number].qmp.command("query-status")["status"], "running")
                address = self.guest_of(number)[1]["guest"].address
                status = checker.wait_full_passes(self.stage.network, address, 1, timeout_s=120)
                self.assertEqual(status.errors, 0, f"vm{number}")
        print(f"{len(numbers)} relocations at once in {seconds:.1f} s; faults "
              f"{[answer['faults'] for answer in answers.values()]}, downtime ms "
              f"{[round(answer['downtime_ms']) for answer in answers.values()]}")

    def costs(self):
        return {name: (cpu_seconds(host.pid), footprint(host.pid))
                for name, host in self.stage.hosts.items()}

    def report_idle(self, before):
        """What each daemon takes for its VMs while nothing is relocated."""
        ready = self.costs()
        time.sleep(_IDLE_S)
        for name, (cpu, memory) in self.costs().items():
            used = (cpu - ready[name][0]) / _IDLE_S / _EACH_WAY
            more = (memory - before[name][1]) / _EACH_WAY
            print(f"daemon {name}, for each of {_EACH_WAY} idle VMs: {used * 1e3:.2f} ms of CPU a "
                  f"second, {more / 1024:.0f} KiB")
            self.assertLess(used, 0.001)
            self.assertLess(more, 1 << 20)


if __name__ == "__main__":
    support.main()
