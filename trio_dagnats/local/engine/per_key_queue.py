"""One lane per run: what concerns a run is done in order, different runs go side by side."""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Generic, TypeVar, final

import trio

T = TypeVar("T")

MOST = 100
"""Things that are done together: one write of a run's snapshot for all of them.

It also bounds how long one write can be put off by things that go on coming.
"""


@final
class PerKeyQueue(Generic[T]):
    """Work in order per key; a lane lives only while it has something to do.

    A lane is a task and a queue. Things stay in the queue while they are worked on, so a
    cancelled lane drops those as well: whoever dropped a message that was half dealt with hands
    it back, and dealing with it once more is safe.

    The queues have no bound of their own; whoever puts things in has credits (``Feed``).

    Args:
        nursery: where lanes run.
        work: does some things of one key, those that had come when it began.
        drop: is told of things that a cancelled lane leaves undone; must not wait.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        work: Callable[[str, Sequence[T]], Awaitable[None]],
        drop: Callable[[T], None],
    ) -> None:
        self._nursery = nursery
        self._work = work
        self._drop = drop
        self._lanes: dict[str, deque[T]] = {}

    def put(self, key: str, thing: T) -> None:
        """Add something to a key's lane.

        Called from callbacks; never waits. A new lane's task begins in trio's next turn.
        """
        lane = self._lanes.get(key)
        if lane is not None:
            lane.append(thing)
            return
        self._lanes[key] = deque([thing])
        self._nursery.start_soon(self._run, key)

    async def _run(self, key: str) -> None:
        lane = self._lanes[key]
        try:
            while lane:
                things = list(islice(lane, MOST))
                await self._work(key, things)
                for _ in things:
                    lane.popleft()
        finally:
            del self._lanes[key]
            for thing in lane:
                self._drop(thing)
