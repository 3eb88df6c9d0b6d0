"""What is to be undone later, and since when nothing is disturbed any more.

Not responsible for what the actions do.
"""

import heapq
import itertools


class Agenda:
    """Actions with their moments, on `clock` (seconds). Nothing happens but in run_due() and finish(). For
    one thread."""

    def __init__(self, clock):
        self._clock = clock
        self._due = []
        self._order = itertools.count()
        self.disturbed_at = clock()  # when the newest disturbance began or ended

    @property
    def busy(self):
        """Whether something is disturbed now."""
        return bool(self._due)

    def disturb(self, *steps):
        """Something is disturbed from now until the last of `steps` was done: (seconds from now, action)
        each. Without steps: it is over already."""
        self.disturbed_at = self._clock()
        for after_s, action in steps:
            heapq.heappush(self._due, (self.disturbed_at + after_s, next(self._order), action))

    def run_due(self):
        """Does what is due."""
        while self._due and self._due[0][0] <= self._clock():
            self._run_first()

    def finish(self):
        """Does all that is left, at once and in order."""
        while self._due:
            self._run_first()

    def _run_first(self):
        _, _, action = heapq.heappop(self._due)
        action()
        self.disturbed_at = self._clock()
