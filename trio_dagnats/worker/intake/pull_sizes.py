"""How much a consumer may ask for at a time when others are waiting for slots too.

For each turn the server writes the consumer's state a few times, which with many consumers costs
as much as the tasks; so turns are as long as their round allows. Pure but for the clock.
"""

from typing import final

import trio

WORTH = 8
"""Messages that are worth a pull, however many consumers wait for their turn."""
ROUND = 1.0
"""Seconds in which each consumer has had its turn, at the pace of late."""
LARGEST_PART = 2
"""A turn takes at most this part (a half) of the slots, so that two pulls are under way."""
PACE_SPAN = 0.05
"""Seconds, at least, over which the pace is taken."""


def pull_size(capacity: int, busy: int, pace: float) -> int:
    """Return how many messages one of ``busy`` consumers may ask for at a time.

    An equal part of the slots, and more if all of them have their turn within a round even so.

    Args:
        capacity: slots of the worker.
        busy: consumers that are known to have messages, at least 1.
        pace: tasks a second.
    """
    return max(WORTH, capacity // busy, min(int(pace * ROUND / busy), capacity // LARGEST_PART))


@final
class Pace:
    """How many attempts of a worker end in a second, of late.

    Attributes:
        rate: a second.
    """

    def __init__(self) -> None:
        self.rate = 0.0
        self._count = 0
        self._since = 0.0

    def ended(self) -> None:
        """Count an attempt that has ended."""
        self._count += 1

    def take(self) -> None:
        """Bring the rate up to date, unless that was done just now."""
        now = trio.current_time()
        span = now - self._since
        if span >= PACE_SPAN:
            self.rate = self._count / span
            self._count, self._since = 0, now
