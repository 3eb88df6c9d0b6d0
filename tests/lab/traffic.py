"""What keeps a guest busy while it is relocated, and what is seen of the relocation there.

Each kind has the same four parts: it is a context manager that starts the load and ends it;
before() and after() are called around the relocation, after() `after_commit_s` after the commit;
figures(marks) and complaints() tell, once after() was called. LabError as the lab's parts.
"""

import json
import time

from . import load, timeline
from .commands import LabError, run

_MARGIN_S = 0.3  # the load runs on for so long after the last window that counts


class Idle:
    """Nothing but the guest's own programs."""

    windows = ()
    base = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def before(self):
        pass

    def after(self):
        pass

    def figures(self, marks):
        return {}

    def complaints(self):
        return []


class Web(Idle):
    """Requests for random files of the guest's web server, over connections that are kept open."""

    kind = load.Load

    def __init__(self, plan, stage, programs):
        self._after_s = plan.after_commit_s
        self._load = self.kind(stage.network, programs.load_client, plan.config.guest,
                               stage.folder / "load.json", plan.connections, plan.think_ms)
        self._report = None

    def __enter__(self):
        self._load.start()
        return self

    def __exit__(self, *_):
        self._load.__exit__()

    def after(self):
        time.sleep(_MARGIN_S)
        self._report = self._load.stop()
        self.windows = self._report.windows

    def figures(self, marks):
        span = (self.windows, marks.command, marks.commit)
        try:
            self.base = timeline.base_rate(self.windows, marks.command)
            lost = timeline.lost_service_ms(*span, self.base, after_s=self._after_s)
            gap = timeline.longest_gap_ms(*span, after_s=self._after_s)
            recovery = timeline.recovery_ms(self.windows, marks, self.base, after_s=self._after_s)
        except ValueError as error:
            raise LabError(f"measure the client's traffic: {error}") from None
        return {"lost_service_ms": round(lost, 1), "longest_gap_ms": round(gap, 1),
                "to_90_percent_ms": None if recovery is None else round(recovery, 1),
                "failed_requests": self._report.failed_requests,
                "lost_connections": self._report.lost_connections,
                "finished_requests": self._report.finished_requests,
                "requests_per_100_ms_before": self.base}

    def complaints(self):
        said = []
        if self._report.failed_requests:
            said.append(f"{self._report.failed_requests} requests failed")
        if self._report.lost_connections:
            said.append(f"{self._report.lost_connections} connections were lost")
        return said


class KeyValue(Web):
    """get and set on the guest's memcached, each value verified."""

    kind = load.KeyValueLoad

    def figures(self, marks):
        return super().figures(marks) | {"wrong_values": self._report.wrong_values}

    def complaints(self):
        wrong = self._report.wrong_values
        return super().complaints() + ([f"{wrong} values were wrong"] if wrong else [])


class Touch(Idle):
    """The guest touches its memory, and times each touch: guest/memtouch.c. What is slower than nearly all
    touches were before the relocation is a wait, as the guest feels it, whatever the arm."""

    def __init__(self, plan, stage):
        self._network, self._address = stage.network, plan.config.guest.address
        self._before = self._after = None

    def before(self):
        self._before = self._read()
        if not self._before["limit_us"]:
            raise LabError("measure touches: the guest does not know yet how long they take")

    def after(self):
        self._after = self._read()

    def _read(self):
        text = run(self._network.exec_argv("client", [
            "timeout", 10, "busybox", "wget", "-q", "-O", "-",
            f"http://{self._address}/memtouch.json"]), what="ask the guest for its waits",
            timeout_s=15)
        return json.loads(text)

    def figures(self, marks):
        return waits_between(self._before, self._after)


def waits_between(before, after):
    """What memtouch's readings say of the time between them: figures."""
    counts = dict(after["waits"])
    for value, count in before["waits"]:
        counts[value] -= count
    total = sum(counts.values())

    def quantile(share):
        left = share * total
        for value in sorted(counts):
            left -= counts[value]
            if left < 0:
                return value
        return max(counts, default=None)

    return {"touches": after["touches"] - before["touches"], "touch_waits": total,
            "touch_limit_us": after["limit_us"],
            "touch_waited_ms": round((after["waited_us"] - before["waited_us"]) / 1000, 1),
            "touch_p50_us": quantile(0.5), "touch_p99_us": quantile(0.99)}


def traffic_of(plan, stage, programs):
    """The load that the plan names."""
    if plan.load == "web":
        return Web(plan, stage, programs)
    if plan.load == "key-value":
        return KeyValue(plan, stage, programs)
    if plan.load == "touch":
        return Touch(plan, stage)
    if plan.load == "idle":
        return Idle()
    raise LabError(f"load the guest: {plan.load!r} is not web, key-value, touch or idle")
