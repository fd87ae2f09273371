"""Attempts that live long enough to be worth a look: one cheap queue in front of all timers.

Most attempts end within milliseconds. Arming a timer per attempt would cost more than a no-op
task itself, so each one only enters a first-in-first-out table; whoever is still there after
``YOUNG`` seconds is handed on to the timed duties (run watch, deadline, lease renewal), which
keep their own times from then on.
"""

import heapq
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Generic, TypeVar, final

import trio

YOUNG = 0.05
"""Seconds after which an attempt is watched (design 8.5)."""

T = TypeVar("T")


@final
class AgeQueue(Generic[T]):
    """A first-in-first-out table of things that grow old after a fixed time.

    Args:
        after: seconds from ``add`` until ``on_old`` is called.
        on_old: called for each thing that was not discarded before; must not wait.
    """

    def __init__(self, after: float, on_old: Callable[[T], None]) -> None:
        self._after = after
        self._on_old = on_old
        self._born: dict[T, float] = {}
        self._lot = trio.lowlevel.ParkingLot()

    def add(self, thing: T, born: float) -> None:
        """Enter a thing, in the order of their birth (trio time); it must not be in the table."""
        if not self._born:
            self._lot.unpark_all()
        self._born[thing] = born

    def renew(self, thing: T, born: float) -> None:
        """Let a thing that has not grown old yet begin again, as if it were born now."""
        if self._born.pop(thing, None) is not None:
            self._born[thing] = born

    def discard(self, thing: T) -> None:
        """Forget a thing; it need not be there."""
        self._born.pop(thing, None)

    async def run(self) -> None:
        """Call ``on_old`` when it is time, until cancelled.

        While things come and go quickly it wakes once per ``after`` seconds, not once per thing.
        """
        while True:
            grows = self._let_age(trio.current_time())
            if grows is None:
                await self._lot.park()
            else:
                await trio.sleep_until(grows)

    def _let_age(self, now: float) -> float | None:
        """Call ``on_old`` for all that are old; return when the next one is, None for never."""
        while self._born:
            thing, born = next(iter(self._born.items()))
            if born + self._after > now:
                return born + self._after
            del self._born[thing]
            self._on_old(thing)
        return None


@final
class Timers:
    """Calls to make at given times: a heap and one task.

    A call that is no longer wanted checks that by itself when its time comes: entries are few
    (only attempts that outlived their first ``YOUNG`` seconds) and their times are bounded.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._heap: list[tuple[float, int, Callable[[], Awaitable[None]]]] = []
        self._numbers = count()
        self._lot = trio.lowlevel.ParkingLot()

    def at(self, when: float, call: Callable[[], Awaitable[None]]) -> None:
        """Start ``call`` in the nursery at the trio time ``when``."""
        heapq.heappush(self._heap, (when, next(self._numbers), call))
        if self._heap[0][0] == when:
            self._lot.unpark_all()

    async def run(self) -> None:
        """Start the calls when their time comes, until cancelled."""
        while True:
            with trio.CancelScope(deadline=self._heap[0][0] if self._heap else float("inf")):
                await self._lot.park()
            now = trio.current_time()
            while self._heap and self._heap[0][0] <= now:
                self._nursery.start_soon(heapq.heappop(self._heap)[2])
