"""What a torture has done and what came of it: the log of injections, the counts, the last line."""

import collections
import dataclasses


@dataclasses.dataclass(frozen=True)
class Entry:
    """An injection, or one that could not be made (`missed` says why)."""

    at_s: float  # since the first hop
    hop: int
    attempt: str  # from which host to which
    kind: str
    text: str
    moment: str   # of the hop
    missed: str = ""

    def __str__(self):
        missed = f": missed, {self.missed}" if self.missed else ""
        return (f"{self.at_s:8.3f} s  hop {self.hop} ({self.attempt}), {self.moment}: {self.kind}, "
                f"{self.text}{missed}")


class Record:
    """Grows while the torture is played. For one thread."""

    def __init__(self, seed):
        self.seed = seed
        self.seconds = 0.0
        self.entries = []
        self.hops = collections.Counter()  # attempts by their outcome
        self.survived = 0                  # injections after which all was well
        self.lost = 0                      # VMs
        self.wrong = 0                     # words of memory, files, responses
        self.left_over = 0                 # what had to be put away by hand: relocations, QEMUs
        self.complaints = []               # a sentence each
        self.notes = []                    # what is remarkable and no fault

    @property
    def ok(self):
        return not (self.lost or self.wrong or self.complaints)

    @property
    def injected(self):
        """How many of each kind."""
        return collections.Counter(entry.kind for entry in self.entries if not entry.missed)

    def add(self, entry):
        self.entries.append(entry)

    def end_attempt(self, outcome):
        """An attempt at a hop has ended, and its VM is well."""
        self.hops[outcome] += 1
        self.survived = self.injected.total()

    def line(self):
        """The last line."""
        return (f"torture: seed {self.seed}, {self.seconds:.0f} s, {self.hops.total()} hops"
                f"{_listed(self.hops, after=True)}, injected {self.injected.total()}"
                f"{_listed(self.injected)}, survived {self.survived}, lost {self.lost}, "
                f"wrong {self.wrong}"
                + (f", left over {self.left_over}" if self.left_over else ""))

    def log(self):
        """The log of injections, a line each."""
        return "".join(f"{entry}\n" for entry in self.entries)

    def figures(self):
        """All of it for a JSON file."""
        missed = collections.Counter(entry.kind for entry in self.entries if entry.missed)
        return {"seed": self.seed, "seconds": round(self.seconds, 1), "hops": self.hops.total(),
                "outcomes": dict(self.hops), "injected": self.injected.total(),
                "injected_by_kind": dict(self.injected), "missed_by_kind": dict(missed),
                "survived": self.survived, "lost": self.lost, "wrong": self.wrong,
                "left_over": self.left_over, "complaints": self.complaints, "notes": self.notes,
                "injections": [dataclasses.asdict(entry) for entry in self.entries]}


def _listed(counts, after=False):
    """Counts in brackets, the most frequent first; the number before its name if not `after`."""
    pairs = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    words = [f"{count} {name}" if after else f"{name} {count}" for name, count in pairs if count]
    return f" ({', '.join(words)})" if words else ""
