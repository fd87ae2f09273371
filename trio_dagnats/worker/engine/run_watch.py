"""The run watch (design 8.5): what the engine decides about a run reaches its attempts here.

One core subscription per run in flight, shared by its attempts, so that the many instances of a
map step do not multiply its traffic. Once the server has the subscription, and after each
reconnect, the history since the task's own timestamp is read, so that there is no gap.
"""

import logging
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol, final

import trio

from trio_dagnats.errors import BrokerError, WireError
from trio_dagnats.transport.port import Broker, Message
from trio_dagnats.wire.events import HistoryEvent, parse_event
from trio_dagnats.wire.names import WORKFLOW_HISTORY, history_subject

log = logging.getLogger("trio_dagnats.worker")

READ_PATIENCE = 5.0
READS_AT_ONCE = 64
"""Histories that are read at once: after a reconnect all of them are wanted, and a server that is
asked for thousands at the same time answers none of them in time."""
PAUSE_AFTER_ERROR = 1.0


class Watched(Protocol):
    """What the watch needs to know of an attempt."""

    @property
    def run_id(self) -> str:
        """The run to watch."""
        ...

    @property
    def published_ns(self) -> int:
        """When the task message was stored: only later history speaks about it."""
        ...

    def run_event(self, event: HistoryEvent) -> None:
        """Take an event that may end the attempt; must not wait."""
        ...


@final
class _Ear:
    """The subscription of one run and the attempts that listen through it.

    ``open`` is the subscription, ``scope`` that of the task at work for it: it has none while there
    is nothing to do, for thousands of runs may wait for days.
    """

    __slots__ = ("behind", "members", "open", "run_id", "scope")

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.members: set[Watched] = set()
        self.behind: set[Watched] = set()
        self.open: AbstractAsyncContextManager[None] | None = None
        self.scope: trio.CancelScope | None = None


@final
class RunWatch:
    """All runs that are watched by one worker.

    Args:
        broker: the connected server.
        nursery: where the subscriptions are opened; it must outlive the attempts.
    """

    def __init__(self, broker: Broker, nursery: trio.Nursery) -> None:
        self._broker = broker
        self._nursery = nursery
        self._ears: dict[str, _Ear] = {}
        self._unheard: list[_Ear] = []
        self._lot = trio.lowlevel.ParkingLot()
        self._turns = trio.CapacityLimiter(READS_AT_ONCE)

    def __len__(self) -> int:
        return len(self._ears)

    def join(self, watched: Watched) -> None:
        """Watch this attempt's run for it, from its task's timestamp on; never waits."""
        ear = self._ears.get(watched.run_id)
        if ear is None:
            ear = self._ears[watched.run_id] = _Ear(watched.run_id)
        ear.members.add(watched)
        ear.behind.add(watched)
        self._attend(ear)

    def leave(self, watched: Watched) -> None:
        """Stop watching for this attempt; the last one closes the subscription."""
        ear = self._ears.get(watched.run_id)
        if ear is None:
            return
        ear.members.discard(watched)
        ear.behind.discard(watched)
        if not ear.members:
            del self._ears[watched.run_id]
            if ear.scope is not None:
                ear.scope.cancel()
            self._unheard.append(ear)
            self._lot.unpark_all()

    async def run(self) -> None:
        """Close the subscriptions that nobody needs any more, until cancelled; then all of them."""
        try:
            while True:
                await self._close_unheard()
                await self._lot.park()
        finally:
            await self._close_unheard()

    async def _close_unheard(self) -> None:
        while self._unheard:
            ear = self._unheard.pop()
            listening, ear.open = ear.open, None
            if listening is not None:
                try:
                    await listening.__aexit__(None, None, None)
                except BrokerError as error:
                    log.debug("run %s is still listened to: %s", ear.run_id, error)

    def _attend(self, ear: _Ear) -> None:
        if ear.scope is None:
            ear.scope = trio.CancelScope()
            self._nursery.start_soon(self._work, ear, ear.scope)

    def _heard(self, ear: _Ear, message: Message | None) -> None:
        """Take a live message, or the news that some were missed."""
        if message is not None:
            tell(message.body, ear.members)
        elif ear.members:
            ear.behind |= ear.members
            self._attend(ear)

    async def _work(self, ear: _Ear, scope: trio.CancelScope) -> None:
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
        ear.scope = None

    async def _listen(self, ear: _Ear) -> None:
        listening = self._broker.listen(history_subject(ear.run_id), partial(self._heard, ear))
        await listening.__aenter__()
        ear.open = listening
        if not ear.members:  # the last one has left just now
            self._unheard.append(ear)
            self._lot.unpark_all()

    async def _catch_up(self, ear: _Ear) -> None:
        behind, ear.behind = ear.behind, set()
        try:
            async with self._turns:
                records = await self._broker.records(
                    WORKFLOW_HISTORY,
                    history_subject(ear.run_id),
                    since_ns=min(watched.published_ns for watched in behind),
                    deadline=trio.current_time() + READ_PATIENCE,
                )
        except BrokerError:  # no answer now: these are still behind
            ear.behind |= behind & ear.members
            await trio.sleep(PAUSE_AFTER_ERROR)
            return
        for record in records:
            late = {w for w in behind if w.published_ns <= record.time_ns}
            tell(record.body, late & ear.members)


def tell(body: bytes, listeners: set[Watched]) -> None:
    """Hand an event to attempts, if it is of a kind that can end one.

    The substring test keeps the traffic of large runs cheap; only few events are parsed.
    """
    if not listeners or not (b'"workflow.' in body or b'"step.failed"' in body):
        return
    try:
        event = parse_event(body)
    except WireError:
        return
    for watched in list(listeners):
        watched.run_event(event)
