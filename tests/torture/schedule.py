"""What a torture injects, and when: a pure function of the seed.

Hop after hop has its injections, each at a moment of the hop: so long after a phase of it has begun.
When that moment is on the clock depends on the machine; what is injected, in which order and where in
a hop, does not. Not responsible for doing any of it (injector.py), nor for what comes of it.
"""

import dataclasses
import random

# The phases of a hop.
PREPARE = "prepare"    # from the command on: the VM runs at the source
SWITCH = "switch"      # from its stop at the source
ARRIVING = "arriving"  # from its start at the destination, until all its memory is there
ANY = "any"            # from the command on, whatever the phase is then

# What is injected, by the names of the last line and of --without.
CUTS = "cuts"                  # a host's link is down for `seconds`
FLAPS = "flaps"                # it comes and goes: `pulses`
SHAPES = "shapes"              # both hosts' links have `mbit` Mbit/s from then on; 0: not limited
RESETS = "resets"              # connections between the daemons end
DAEMON_KILLS = "daemon-kills"  # SIGKILL before the switch; started again after `seconds`
ARRIVING_KILLS = "daemon-kills-while-arriving"  # the same after the switch
DAEMON_STALLS = "daemon-stalls"  # SIGSTOP, and SIGCONT after `seconds`
VMM_KILLS = "vmm-kills"        # SIGKILL for the QEMU that waits, before the switch
BALLOONS = "balloons"          # the guest is left `mib` of its RAM
CANCELS = "cancels"            # an operator gives the relocation up, or tries to
PAUSES = "pauses"              # the guest is paused where it runs, and goes on after `seconds`
FOREIGN_CONTS = "foreign-conts"  # `cont` at the source's QEMU, which the VM has left
SOURCE_ENDS = "source-ends"    # SIGTERM for the source's QEMU while memory arrives

# How many of each kind are in a deck: every kind comes before any comes more often than that.
_DECK = {CUTS: 5, FLAPS: 2, SHAPES: 4, RESETS: 3, DAEMON_KILLS: 2, ARRIVING_KILLS: 3, DAEMON_STALLS: 3,
         VMM_KILLS: 1, BALLOONS: 3, CANCELS: 1, PAUSES: 2, FOREIGN_CONTS: 2, SOURCE_ENDS: 2}
KINDS = tuple(_DECK)
SHORTEST_CUT_S, LONGEST_CUT_S = 0.1, 8.0
LONGEST_STALL_S = 6.0   # beyond what both sides take as silence
LONGEST_ABSENCE_S = 2.0
LONGEST_PAUSE_S = 3.0
RATES_MBIT = (100, 200, 200, 500, 500, 1000, 1000, 0)
FEWEST_MIB, MOST_MIB = 320, 384  # what a balloon leaves the guest
LATEST_S = {PREPARE: 0.4, SWITCH: 0.06, ARRIVING: 3.0, ANY: 6.0}  # an injection after its phase began
_PER_HOP = (2, 3, 3, 4, 5)


@dataclasses.dataclass(frozen=True)
class Injection:
    """One of them. `side` is that of the hop whose host it is for: "source" or "destination"."""

    kind: str
    phase: str
    after_s: float
    side: str
    seconds: float = 0
    pulses: tuple = ()  # (seconds down, seconds up after that), one after the other
    mbit: int = 0
    mib: int = 0

    @property
    def lasts_s(self):
        """How long until all that it does is undone; a shape, a balloon and the end of a QEMU stay."""
        return self.seconds + sum(down + up for down, up in self.pulses)

    def __str__(self):
        what = {
            CUTS: f"link of the {self.side} cut for {self.seconds:.2f} s",
            FLAPS: f"link of the {self.side} down {len(self.pulses)} times, {self.lasts_s:.2f} s in all",
            SHAPES: f"links shaped to {self.mbit} Mbit/s" if self.mbit else "links not limited any more",
            RESETS: f"connections of the {self.side} reset",
            DAEMON_KILLS: f"daemon of the {self.side} killed, back after {self.seconds:.2f} s",
            ARRIVING_KILLS: f"daemon of the {self.side} killed, back after {self.seconds:.2f} s",
            DAEMON_STALLS: f"daemon of the {self.side} stalled for {self.seconds:.2f} s",
            VMM_KILLS: "waiting QEMU killed",
            BALLOONS: f"balloon leaves {self.mib} MiB",
            CANCELS: "cancelled",
            PAUSES: f"guest paused for {self.seconds:.2f} s",
            FOREIGN_CONTS: "cont at the source's QEMU",
            SOURCE_ENDS: "SIGTERM for the source's QEMU",
        }
        return what[self.kind]


class Schedule:
    """The injections of hop 1, 2, … of a seed. `without` kinds are left out of it, and nothing else
    changes. For one thread."""

    def __init__(self, seed, without=()):
        if unknown := set(without) - set(KINDS):
            raise ValueError(f"there is no kind {min(unknown)!r}; there are {', '.join(KINDS)}")
        self._random = random.Random(f"postcopy torture {seed}")
        self._without = frozenset(without)
        self._deck = []

    def next_hop(self):
        """The injections of the next hop: a tuple, in the order in which their moments come if all is
        done within each phase."""
        kinds = [self._deal() for _ in range(self._random.choice(_PER_HOP))]
        drawn = [self._draw(kind) for kind in kinds]
        drawn.sort(key=lambda each: (_ORDER[each.phase], each.after_s))
        return tuple(each for each in drawn if each.kind not in self._without)

    def _deal(self):
        if not self._deck:
            self._deck = [kind for kind, count in _DECK.items() for _ in range(count)]
            self._random.shuffle(self._deck)
        return self._deck.pop()

    def _draw(self, kind):
        phase = self._random.choice(_PHASES[kind])
        after_s = LATEST_S[phase] * self._random.random() ** 2  # rather soon: a phase may be short
        if kind == SHAPES and phase == PREPARE:
            after_s = 0.0  # this hop's memory, too, comes over that link
        side = self._random.choice(("source", "destination"))
        return Injection(kind, phase, after_s, side, **_MAKE[kind](self._random))


def due_and_over(left, phase, begun, now):
    """Of the injections `left` of a hop those that are due, and those whose phase is over: two lists.

    `phase` is the present one; None: the VM goes on at its source, and another attempt comes, to which the
    others are left. `begun` says when each phase of this attempt began (ANY: the attempt), as `now` does.
    """
    due, over = [], []
    for each in left:
        if each.phase in (phase, ANY):
            if now >= begun[each.phase] + each.after_s:
                due.append(each)
        elif phase is not None and _ORDER[each.phase] < _ORDER[phase]:
            over.append(each)
    return due, over


_ORDER = {ANY: 0, PREPARE: 0, SWITCH: 1, ARRIVING: 2}
_EARLY, _EVER = (PREPARE, SWITCH), (PREPARE, SWITCH, ARRIVING, ARRIVING, ARRIVING, ANY)
_PHASES = {CUTS: _EVER, FLAPS: _EVER, RESETS: _EVER, DAEMON_STALLS: _EVER, BALLOONS: _EVER,
           SHAPES: (PREPARE, PREPARE, ARRIVING), DAEMON_KILLS: _EARLY, ARRIVING_KILLS: (ARRIVING,),
           VMM_KILLS: _EARLY, CANCELS: (PREPARE, SWITCH, SWITCH, ARRIVING),
           PAUSES: (PREPARE, ARRIVING, ARRIVING), FOREIGN_CONTS: (ARRIVING,), SOURCE_ENDS: (ARRIVING,)}


def _cut(dice):
    # As many below a second as above it.
    return {"seconds": SHORTEST_CUT_S * (LONGEST_CUT_S / SHORTEST_CUT_S) ** dice.random()}


def _flap(dice):
    return {"pulses": tuple((dice.uniform(0.05, 0.5), dice.uniform(0.1, 0.6))
                            for _ in range(dice.randint(3, 8)))}


def _absence(dice):
    return {"seconds": dice.choice((0.0, LONGEST_ABSENCE_S * dice.random()))}


def _nothing(_dice):
    return {}


_MAKE = {
    CUTS: _cut, FLAPS: _flap, RESETS: _nothing, VMM_KILLS: _nothing, CANCELS: _nothing,
    FOREIGN_CONTS: _nothing, SOURCE_ENDS: _nothing,
    PAUSES: lambda dice: {"seconds": dice.uniform(0.1, LONGEST_PAUSE_S)},
    SHAPES: lambda dice: {"mbit": dice.choice(RATES_MBIT)},
    DAEMON_KILLS: _absence, ARRIVING_KILLS: _absence,
    DAEMON_STALLS: lambda dice: {"seconds": dice.uniform(0.2, LONGEST_STALL_S)},
    BALLOONS: lambda dice: {"mib": dice.randrange(FEWEST_MIB, MOST_MIB + 1, 16)},
}
