"""The run watch (design 8.5): what the engine decides about a run reaches its attempts here.

One core subscription per run in flight, shared by its attempts, so that the many instances of a
map step do not multiply its traffic. Once the server has the subscription, and after each
reconnect, the history is read, so that there is no gap; whoever joins later is told what was found,
without another read, until something is heard that may concern it.

A run that is cancelled before its task was dispatched has its ``workflow.cancelled`` *before* the
task: the engine takes events one after the other, and it dispatched before it came to that one. So
the history is read from ``LOOK_BACK`` seconds before the task on, and a cancellation in there is a
hint, no more: the engine ignores one of a run that waits for its turn (contract 6.7), and such a
run is dispatched later and must complete. Whoever is told of a hint asks the run's snapshot.

A run that is watched is in one of these states, each of them a :class:`_RunSubscription`::

    (none) ──join──> behind: a task subscribes, then reads ──told──> quiet: no task at work
                       ^   ^                                          │   │         │
                       │   └── a reconnect: some may be missed ───────┘   │         │
                       └── join, if something was heard since the read ───┘         │
                       ^                                                            │ the last
                       │ join                                                       v leaves
                       └──────────────────────────────────────────────────── lingering
                                                                                    │
                           (none) <── after LINGER seconds, or too many linger ─────┘

| what is found | where | who is told |
|---|---|---|
| the run has ended | a live message | all members, at once |
| the same | the history, from the task on | whoever is behind, or joins |
| the engine's timeout of a step | either | the same; the attempt looks whether it is its own |
| a cancellation after ``known_sequence`` | the history | the same |
| a cancellation before that, or nothing is known | the history | the same, as a hint: ``doubt`` |
| the run's deadline has passed | nowhere: nobody publishes that | (``upkeep`` looks for it) |

Who calls: ``upkeep`` joins an attempt that is no longer young; it leaves when its outcome is stored
(else our own end of the run would cancel its clean-up) or when it leaves the worker.

Why not a consumer for each run? One core subscription costs the server an entry in a table, and
nothing to remember; what it may miss is in the history.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeVar, final

import trio

from trio_dagnats.errors import BrokerError, WireError
from trio_dagnats.logs import Log
from trio_dagnats.transport.port import FOREVER, Broker, Message
from trio_dagnats.wire.events import EventType, HistoryEvent, parse_event
from trio_dagnats.wire.names import WORKFLOW_HISTORY, history_subject
from trio_dagnats.wire.text import NS

log = Log("trio_dagnats.worker")

READ_PATIENCE = 5.0
"""Seconds for the reading of one history; then it is tried again."""
READS_AT_ONCE = 64
"""Histories that are read at once: after a reconnect all of them are wanted, and a server that is
asked for thousands at the same time answers none of them in time."""
PAUSE_AFTER_ERROR = 1.0
"""Seconds before a server that did not answer is asked again."""
LINGER = 5.0
MOST_LINGERING = 256
"""Seconds for which a run is listened to without anybody, and how many at the most are: the next
item of a map finds its run watched, and need not read its history again."""
LOOK_BACK = 60.0
"""Seconds before a task from which on its run's history is read for a cancellation; half of it is
enough for those that join later. An engine that is even further behind is noticed by the looks at
the run (``attempts.upkeep``)."""


class Watched(Protocol):
    """What the watch needs to know of an attempt.

    A protocol, so that this room need not know attempts (``attempts.Attempt`` has these members).
    """

    @property
    def run_id(self) -> str:
        """The run to watch."""
        ...

    @property
    def published_ns(self) -> int:
        """When the task message was stored: only later history speaks about it."""
        ...

    @property
    def known_sequence(self) -> int:
        """The newest history sequence that is known to speak about it, 0 for none yet."""
        ...

    def run_event(self, event: HistoryEvent) -> None:
        """Take an event that may end the attempt; must not wait."""
        ...


T = TypeVar("T", bound=Watched)

_RUN_ENDS = frozenset(
    {EventType.WORKFLOW_CANCELLED, EventType.WORKFLOW_COMPLETED, EventType.WORKFLOW_FAILED}
)


class _Found(NamedTuple):
    """An event that may end attempts, and where and when the server has stored it."""

    event: HistoryEvent
    sequence: int
    time_ns: int


@final
class _RunSubscription(Generic[T]):
    """The subscription of one run and the attempts that listen through it.

    ``open`` is the subscription, ``scope`` that of the task at work for it: it has none while there
    is nothing to do, for thousands of runs may wait for days. ``found`` is what the history has
    shown from ``since_ns`` on. ``news`` counts what was heard that may have to be read, ``read`` is
    that count as it was when the reading began.

    ``members`` are all that listen, ``behind`` those of them that the history has still to be read
    for. Only :class:`RunWatch` writes to it.
    """

    __slots__ = (
        "behind",
        "found",
        "members",
        "news",
        "open",
        "read",
        "run_id",
        "scope",
        "since_ns",
    )

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.members: set[T] = set()
        self.behind: set[T] = set()
        self.open: AbstractAsyncContextManager[None] | None = None
        self.scope: trio.CancelScope | None = None
        self.found: list[_Found] = []
        self.since_ns = 0
        self.news, self.read = 1, 0

    def knows_from(self, time_ns: int) -> bool:
        """Say whether ``found`` has all that there is from this time on."""
        return self.read == self.news and self.since_ns <= time_ns


@final
class RunWatch(Generic[T]):
    """All runs that are watched by one worker.

    An outage ends nothing here: whoever is behind stays behind, and its run is asked for again
    after ``PAUSE_AFTER_ERROR`` seconds.

    Args:
        broker: the connected server.
        nursery: where the subscriptions are opened; it must outlive the attempts.
        doubt: called with each attempt whose run may have been cancelled before its task was
            dispatched; must not wait.
    """

    def __init__(self, broker: Broker, nursery: trio.Nursery, doubt: Callable[[T], None]) -> None:
        self._broker = broker
        self._nursery = nursery
        self._doubt = doubt
        self._subscriptions: dict[str, _RunSubscription[T]] = {}
        self._lingering: dict[_RunSubscription[T], float] = {}
        self._lot = trio.lowlevel.ParkingLot()
        self._reads = trio.CapacityLimiter(READS_AT_ONCE)

    def __len__(self) -> int:
        return len(self._subscriptions)

    def join(self, watched: T) -> None:
        """Watch this attempt's run for it; never waits.

        If what is known goes back far enough it is told here, before this returns; so ``run_event``
        may be called in here. Else it is behind, and a task reads.
        """
        ear = self._subscriptions.get(watched.run_id)
        if ear is None:
            ear = self._subscriptions[watched.run_id] = _RunSubscription(watched.run_id)
        ear.members.add(watched)
        self._lingering.pop(ear, None)
        if ear.knows_from(_before(watched, LOOK_BACK / 2)):
            self._tell(ear.found, watched)
        else:
            ear.behind.add(watched)
            self._attend(ear)

    def leave(self, watched: T) -> None:
        """Stop watching for this attempt; a while after the last one the subscription closes."""
        ear = self._subscriptions.get(watched.run_id)
        if ear is None or watched not in ear.members:
            return
        ear.members.discard(watched)
        ear.behind.discard(watched)
        if not ear.members:
            self._linger(ear)

    def _linger(self, ear: _RunSubscription[T]) -> None:
        """Stop the work for a run without members; keep its subscription for a while.

        The next item of a map joins within that time, and finds its run watched.
        """
        if ear.scope is not None:
            ear.scope.cancel()
            ear.scope = None
        if ear.open is None:  # or it is being opened, and comes here again
            self._subscriptions.pop(ear.run_id, None)
            return
        self._lingering[ear] = trio.current_time() + LINGER
        if len(self._lingering) == 1 or len(self._lingering) > MOST_LINGERING:
            self._lot.unpark_all()

    async def run(self) -> None:
        """Close the subscriptions that nobody needs any more, until cancelled; then all of them."""
        try:
            while True:
                now = trio.current_time()
                while self._lingering and self._first_ends() <= now:
                    await self._close_first()
                with trio.CancelScope(deadline=self._first_ends()):
                    await self._lot.park()
        finally:
            while self._lingering:
                await self._close_first()

    def _first_ends(self) -> float:
        """Return the trio time at which to close the first of those that linger."""
        if len(self._lingering) > MOST_LINGERING:
            return 0.0
        return next(iter(self._lingering.values()), FOREVER)

    async def _close_first(self) -> None:
        """Close the subscription that has lingered for longest.

        It is taken out first: whoever joins while it closes gets a new one.
        """
        ear = next(iter(self._lingering))
        del self._lingering[ear]
        if self._subscriptions.get(ear.run_id) is ear:
            del self._subscriptions[ear.run_id]
        assert ear.open is not None
        try:
            await ear.open.__aexit__(None, None, None)
        except BrokerError as error:
            log.debug("run %s is still listened to: %s", ear.run_id, error)

    def _attend(self, ear: _RunSubscription[T]) -> None:
        """See to it that a task works for this run; there is one at most."""
        if ear.scope is None:
            ear.scope = trio.CancelScope()
            self._nursery.start_soon(self._work, ear, ear.scope)

    def _heard(self, ear: _RunSubscription[T], message: Message | None) -> None:
        """Take a live message, or (None) the news that some were missed.

        Called by the transport, must not wait. After a reconnect all members are behind, for what
        was published meanwhile went to nobody.
        """
        if message is None:
            ear.news += 1
            if ear.members:
                ear.behind |= ear.members
                self._attend(ear)
            return
        event = ending(message.body)
        if event is not None:
            ear.news += 1  # a live message does not say when it was stored: to be read
            for watched in list(ear.members):
                watched.run_event(event)

    async def _work(self, ear: _RunSubscription[T], scope: trio.CancelScope) -> None:
        """Listen, and catch up; a server that does not answer is asked again."""
        with scope:
            while ear.behind:
                try:
                    if ear.open is None:
                        await self._listen(ear)
                    else:
                        await self._catch_up(ear)
                except BrokerError as error:
                    log.debug("run %s is not watched now: %s", ear.run_id, error)
                    await trio.sleep(PAUSE_AFTER_ERROR)
        if ear.scope is scope:
            ear.scope = None

    async def _listen(self, ear: _RunSubscription[T]) -> None:
        """Subscribe; returns when the server has it, so that the history is read after that.

        Entered by hand and left by :meth:`_close_first`: it outlives the task that opens it.
        """
        listening = self._broker.listen(history_subject(ear.run_id), partial(self._heard, ear))
        await listening.__aenter__()
        ear.open = listening
        if not ear.members:  # the last one has left just now
            self._linger(ear)

    async def _catch_up(self, ear: _RunSubscription[T]) -> None:
        """Read the history for all that are behind, and tell each what concerns it.

        Read from the oldest of them on: one read serves all. ``news`` is taken before it, so that
        what is heard while it lasts is read again by the next one who joins.
        """
        behind, ear.behind = ear.behind, set()
        since_ns = min(_before(watched, LOOK_BACK) for watched in behind)
        news = ear.news
        try:
            async with self._reads:
                records = await self._broker.records(
                    WORKFLOW_HISTORY,
                    history_subject(ear.run_id),
                    since_ns=since_ns,
                    deadline=trio.current_time() + READ_PATIENCE,
                )
        except BrokerError:  # no answer now: these are still behind
            ear.behind |= behind & ear.members
            await trio.sleep(PAUSE_AFTER_ERROR)
            return
        events = ((ending(record.body), record) for record in records)
        ear.found = [_Found(e, record.sequence, record.time_ns) for e, record in events if e]
        ear.since_ns, ear.read = since_ns, news
        for watched in behind & ear.members:
            self._tell(ear.found, watched)

    def _tell(self, found: Iterable[_Found], watched: T) -> None:
        """Tell an attempt what has been found about its run."""
        for event, sequence, time_ns in found:
            if event.type == EventType.WORKFLOW_CANCELLED:
                if 0 < watched.known_sequence < sequence:  # the run was running
                    watched.run_event(event)
                else:
                    self._doubt(watched)
            elif watched.published_ns <= time_ns:
                watched.run_event(event)


def ending(body: bytes) -> HistoryEvent | None:
    """Read an event if it is of a kind that can end an attempt.

    The substring test keeps the traffic of large runs cheap; only few events are parsed.
    """
    if not (b'"workflow.' in body or b'"step.failed"' in body):
        return None
    try:
        event = parse_event(body)
    except WireError:
        return None
    of_engine = event.type == EventType.STEP_FAILED and not event.worker_id
    return event if of_engine or event.type in _RUN_ENDS else None


def _before(watched: Watched, seconds: float) -> int:
    return watched.published_ns - round(seconds * NS)
