"""Where attempts begin: what has begun goes before what has only arrived.

While the processor is the limit, everything has to wait somewhere. Before its ``step.started`` a
task costs nothing and nobody looks at a clock; once it has begun it is in somebody's way: its
coroutines stand around, its step's time runs. So only so many begin in each of trio's turns; the
answers and handlers of those before them have their turn first::

    delivery ──> admit ──> a twin runs here: forgotten, the slot is free again
                   │
                   └─> Attempt, joined, parsed ──> enter ──> begin at once (so many a turn)
                                                     └────> in line ──> begin in a later turn

Deliveries arrive in bursts, as the transport reads them from its socket: without the line each of
them would begin before the first one's handler has had a turn of trio's.
"""

from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar, final

import trio

from trio_dagnats.transport.port import Delivery, Pending
from trio_dagnats.worker.attempts.attempt import Attempt, InFlight, Program
from trio_dagnats.worker.execution.triage import parse
from trio_dagnats.worker.intake.consume import Consumer

PER_TURN = 16
"""Attempts that begin in one of trio's turns, at most: half as many would cost throughput, twice as
many latency (docs/performance.md)."""


class Beginner(Protocol):
    """What begins.

    Attributes:
        lease_until: trio time.
        pending: what it waits for; a place in the line is something of that kind.
    """

    lease_until: float
    pending: Pending | None


T = TypeVar("T", bound=Beginner)


@final
class _Place(Generic[T]):
    """A place in the line; can be abandoned as a post can (``port.Pending``)."""

    __slots__ = ("deadline", "whose")

    def __init__(self, whose: T) -> None:
        self.whose: T | None = whose
        self.deadline = whose.lease_until

    def abandon(self) -> None:
        """Leave the line."""
        self.whose = None


@final
class StartQueue(Generic[T]):
    """Begins attempts, in the order in which they come.

    An attempt in line has its place as ``pending``, so that whoever cancels it abandons that as
    he would a post. The slots bound the line: each attempt in it has one.

    Args:
        begin: begins one; must not wait.
    """

    def __init__(self, begin: Callable[[T], None]) -> None:
        self._begin = begin
        self._left = PER_TURN
        self._line: deque[_Place[T]] = deque()
        self._entered = trio.lowlevel.ParkingLot()

    def enter(self, attempt: T) -> None:
        """Begin an attempt, at once or after others. Bounded by the slots."""
        if not self._left or self._line:
            attempt.pending = place = _Place(attempt)
            self._line.append(place)
            return
        if self._left == PER_TURN:
            self._entered.unpark_all()
        self._left -= 1
        self._begin(attempt)

    async def run(self) -> None:
        """Let the next ones begin in each turn, until cancelled."""
        while True:
            if self._left == PER_TURN:
                await self._entered.park()
            else:
                await trio.lowlevel.checkpoint()
            self._let_in()

    def _let_in(self) -> None:
        """Let some begin; here, so that nothing holds the last of them while nobody comes."""
        self._left = PER_TURN
        while self._line and self._left:
            attempt = self._line.popleft().whose
            if attempt is not None:
                self._left -= 1
                attempt.pending = None
                self._begin(attempt)


def admit(
    in_flight: InFlight,
    start_queue: StartQueue[Attempt],
    program: Program,
    consumer: Consumer,
    delivery: Delivery,
) -> None:
    """Make a delivery an attempt, which begins at once or after others; never waits.

    Called by ``intake.consume`` with a delivery that has its slot. The message is parsed here and
    not when it begins: the run has to be known to whoever watches it meanwhile.

    What it raises is logged by the transport, which says nothing about the delivery any more.
    """
    twin = in_flight.dispatches.get(delivery.stream_sequence)
    if twin is not None and not twin.cancelled:
        # A server that was killed may not remember that it has handed this out. The answer of the
        # attempt that runs settles the message, whichever delivery it was for.
        delivery.forget()
        in_flight.shared.slots.ended(consumer.share)
        return
    attempt = Attempt(in_flight, program, consumer, delivery)
    in_flight.join(attempt)
    try:
        parse(attempt)  # its duties need to know the run, however long it waits
        start_queue.enter(attempt)
    except Exception:
        if attempt.pending is not None:
            attempt.pending.abandon()
        in_flight.leave(attempt)  # else its slot were lost; the transport leaves it to its lease
        raise
