"""Whether visitors of the guest's web site were served well: pure functions over the pages of a browse run.

Judges as SPECweb2005 does, but over all kinds of pages together: one relocation sees too few of each kind.
Where each limit is from says docs/loads.md. No input or output, no clock. Times are seconds since the epoch.
"""

import dataclasses

GOOD_SHARE = 0.95       # of the pages, and of the downloads, that must be good
TOLERABLE_SHARE = 0.99  # … at least tolerable
GOOD_BYTES_PER_S = 99_000       # of a download
TOLERABLE_BYTES_PER_S = 95_000


@dataclasses.dataclass(frozen=True)
class Limits:
    """How long a page may take with all that it embeds."""

    good_s: float
    tolerable_s: float


LIMITS = {"banking": Limits(2, 4), "ecommerce": Limits(3, 5), "support": Limits(3, 5)}


@dataclasses.dataclass(frozen=True)
class Page:
    start: float
    duration_s: float  # so far, if it is unfinished
    bytes: int         # that have come
    outcome: str       # "finished", "failed" or "unfinished"
    download: bool = False


def pages_of(raw):
    """The pages of the load client's JSON."""
    return [Page(page["start_ms"] / 1000, page["duration_ms"] / 1000, page["bytes"], page["outcome"],
                 page["download"]) for page in raw["pages"]]


def between(pages, start, end):
    """Those that were on their way at some time from `start` to `end`."""
    return [page for page in pages if page.start < end and page.start + page.duration_s >= start]


def grade(page, limits):
    """"good", "tolerable" or "bad". None: unfinished, and nothing is known yet."""
    if page.outcome == "failed":
        return "bad"
    if page.download:
        rate = page.bytes / page.duration_s if page.duration_s else float("inf")
        found = ("good" if rate >= GOOD_BYTES_PER_S else
                 "tolerable" if rate >= TOLERABLE_BYTES_PER_S else "bad")
    else:
        found = ("good" if page.duration_s <= limits.good_s else
                 "tolerable" if page.duration_s <= limits.tolerable_s else "bad")
    return found if page.outcome == "finished" or found == "bad" else None


def shares(pages, limits):
    """(good, at least tolerable, number of pages): shares of the pages that have a grade; (None, None, 0) if
    none has."""
    grades = [found for page in pages if (found := grade(page, limits))]
    if not grades:
        return None, None, 0
    good, bad = grades.count("good"), grades.count("bad")
    return good / len(grades), 1 - bad / len(grades), len(grades)


def figures(mix, pages, start, end):
    """What visitors have felt from `start` to `end`, by public names; no downloads' where there were none.
    ValueError if no page was on its way."""
    limits, seen = LIMITS[mix], between(pages, start, end)
    plain = [page for page in seen if not page.download]
    good, tolerable, count = shares(plain, limits)
    if not count:
        raise ValueError("no page in all that time")
    durations = sorted(page.duration_s for page in plain if page.outcome == "finished")
    found = {"pages": count, "pages_good_share": round(good, 4), "pages_tolerable_share": round(tolerable, 4),
             **{name: round(1000 * durations[int(share * (len(durations) - 1))], 1) if durations else None
                for name, share in (("page_p50_ms", 0.5), ("page_p99_ms", 0.99), ("page_max_ms", 1))}}
    met = good >= GOOD_SHARE and tolerable >= TOLERABLE_SHARE
    good, tolerable, count = shares([page for page in seen if page.download], limits)
    if count:
        found |= {"downloads": count, "downloads_good_share": round(good, 4),
                  "downloads_tolerable_share": round(tolerable, 4)}
        met = met and good >= GOOD_SHARE and tolerable >= TOLERABLE_SHARE
    return {**found, "qos_met": met}
