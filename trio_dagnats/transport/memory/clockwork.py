"""What happens by itself in the in-memory server: callbacks in order, and calls at given times.

A real server answers later, and never inside the call that asked. Here everything that a client
does not do itself is a call of one task, so that a callback cannot come before the call that caused
it has returned, and two of them never interleave. A call must not wait.

What a call raises ends the server's nursery, and so the test: callbacks of users are guarded where
they are made (``rules.callback_failed``), so it is a defect of the server's own.
"""

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import final

import trio

Call = Callable[[], None]


@final
class Clockwork:
    """One task that makes all calls, so that none of them happens inside another.

    Those without a time go first, in the order of their posting; of two for the same moment the one
    that was made first. Nothing is ever taken out again: a call that has become pointless has to
    find that out (``Consumer._lapse`` compares).
    """

    def __init__(self) -> None:
        self._soon: deque[Call] = deque()
        self._later: list[tuple[float, int, Call]] = []
        self._numbers = count()
        self._lot = trio.lowlevel.ParkingLot()

    def post(self, call: Call) -> None:
        """Make a call in the next turn, after those that were posted before."""
        self._soon.append(call)
        self._lot.unpark_all()

    def at(self, when: float, call: Call) -> None:
        """Make a call at a trio time (seconds), or as soon as possible after it."""
        heapq.heappush(self._later, (when, next(self._numbers), call))
        self._lot.unpark_all()

    async def run(self) -> None:
        """Make the calls until cancelled."""
        while True:
            while self._soon:
                self._soon.popleft()()
            if self._later and self._later[0][0] <= trio.current_time():
                self._soon.append(heapq.heappop(self._later)[2])
                continue
            with trio.move_on_at(self._later[0][0] if self._later else float("inf")):
                await self._lot.park()
