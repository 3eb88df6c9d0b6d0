"""What keeps a guest busy while it is relocated, and what is seen of the relocation there.

Each kind has the same four parts: it is a context manager that starts the load and ends it;
before() and after() are called around the relocation, after() `after_commit_s` after the commit;
figures(marks) and complaints() tell, once after() was called. LabError as the lab's parts.
"""

import json
import time

from . import load, qos, timeline
from .commands import LabError, run

VISITS = "specweb-"  # begins the names of loads by visitors; the rest is their mix
# So many visitors as take a third to a half of what the guest can serve under TCG.
_VISITORS = {"banking": 40, "ecommerce": 30, "support": 25}
_VISITORS_THINK_MS = 1000
_BEFORE_S = 5.0  # before the command, what all after it is compared with
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


class Requests(Idle):
    """Of the load client: what all that it asks for have in common. `asked` is a load.Client."""

    def __init__(self, plan, asked):
        self._after_s = plan.after_commit_s
        self._load = asked
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
        try:
            self.base = timeline.base_rate(self.windows, marks.command, _BEFORE_S)
            found = self._felt(marks)
            gap = timeline.longest_gap_ms(self.windows, marks.command, marks.commit, after_s=self._after_s)
        except ValueError as error:
            raise LabError(f"measure the client's traffic: {error}") from None
        return {**found, "longest_gap_ms": round(gap, 1),
                "failed_requests": self._report.failed_requests,
                "lost_connections": self._report.lost_connections,
                "finished_requests": self._report.finished_requests,
                "requests_per_100_ms_before": self.base}

    def _felt(self, marks):
        """The figures that only some loads have. ValueError as timeline's functions; base is known."""
        raise NotImplementedError

    def complaints(self):
        return self._report.complaints()


class Web(Requests):
    """Requests for random files of the guest's web server, over connections that are kept open."""

    kind = load.Load

    def __init__(self, plan, stage, programs):
        super().__init__(plan, self.kind(stage.network, programs.load_client, plan.config.guest,
                                         stage.folder / "load.json", plan.connections, plan.think_ms))

    def _felt(self, marks):
        lost = timeline.lost_service_ms(self.windows, marks.command, marks.commit, self.base,
                                        after_s=self._after_s)
        recovery = timeline.recovery_ms(self.windows, marks, self.base, after_s=self._after_s)
        return {"lost_service_ms": round(lost, 1),
                "to_90_percent_ms": None if recovery is None else round(recovery, 1)}


class KeyValue(Web):
    """get and set on the guest's memcached, each value verified."""

    kind = load.KeyValueLoad

    def figures(self, marks):
        return super().figures(marks) | {"wrong_values": self._report.wrong_values}


class Visits(Requests):
    """Visitors of the guest's web site; plan.load is VISITS and the name of a mix.

    The lost service of timeline.py is not among the figures: visitors come page by page, ten or twenty
    requests at once, so the number of requests in 100 ms spreads by 40 % around its mean, and such a measure
    finds more than a second lost in every ten undisturbed ones. What the pages say (qos.py) stands in its
    place.
    """

    def __init__(self, plan, stage, programs):
        self._mix = plan.load.removeprefix(VISITS)
        if self._mix not in qos.LIMITS:
            raise LabError(f"load the guest: there is no mix {self._mix!r}")
        if not plan.config.guest.web_dirs:
            raise LabError("load the guest: it has no web site (guest parameter web_dirs)")
        super().__init__(plan, load.Visitors(stage.network, programs.load_client, plan.config.guest,
                                             stage.folder / "visits.json", self._mix,
                                             _VISITORS[self._mix], think_ms=_VISITORS_THINK_MS))

    def _felt(self, marks):
        pages = qos.pages_of(self._report.raw)
        felt = qos.figures(self._mix, pages, marks.command, marks.commit + self._after_s)
        before = qos.figures(self._mix, pages, marks.command - _BEFORE_S, marks.command)
        return {**felt, "page_p99_before_ms": before["page_p99_ms"], "qos_met_before": before["qos_met"]}

    def complaints(self):
        wrong = [failure["path"] for failure in self._report.raw["failures"]
                 if failure["cause"] == "content"]
        return super().complaints() + ([f"wrong content came, first of {wrong[0]}"] if wrong else [])


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
    if plan.load.startswith(VISITS):
        return Visits(plan, stage, programs)
    raise LabError(f"load the guest: {plan.load!r} is not web, key-value, touch, idle or {VISITS}…")
