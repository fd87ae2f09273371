"""The run watch: what the engine decides about a run reaches the attempts that run here (8.5).

One core subscription per run in flight, shared by its attempts, so that the many instances of a
map step do not multiply its traffic. Once the server has the subscription, and after each
reconnect, the history since the task's own timestamp is read, so that there is no gap.
"""

import logging
from typing import Protocol, final

import trio

from trio_dagnats.errors import BrokerError, WireError
from trio_dagnats.transport.port import Broker, Message
from trio_dagnats.wire.events import HistoryEvent, parse_event
from trio_dagnats.wire.names import WORKFLOW_HISTORY, history_subject

log = logging.getLogger("trio_dagnats.worker")

READ_PATIENCE = 5.0
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
    """The subscription of one run and the attempts that listen through it."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.members: set[Watched] = set()
        self.behind: set[Watched] = set()
        self.scope = trio.CancelScope()
        self.lot = trio.lowlevel.ParkingLot()

    def heard(self, message: Message | None) -> None:
        """Take a live message, or the news that some were missed."""
        if message is None:
            self.behind |= self.members
            self.lot.unpark_all()
            return
        tell(message.body, self.members)


@final
class RunWatch:
    """All runs that are watched by one worker.

    Args:
        broker: the connected server.
        nursery: where the subscriptions live; it must outlive the attempts.
    """

    def __init__(self, broker: Broker, nursery: trio.Nursery) -> None:
        self._broker = broker
        self._nursery = nursery
        self._ears: dict[str, _Ear] = {}

    def __len__(self) -> int:
        return len(self._ears)

    def join(self, watched: Watched) -> None:
        """Watch this attempt's run for it, from its task's timestamp on; never waits."""
        ear = self._ears.get(watched.run_id)
        if ear is None:
            ear = self._ears[watched.run_id] = _Ear(watched.run_id)
            self._nursery.start_soon(self._watch, ear)
        ear.members.add(watched)
        ear.behind.add(watched)
        ear.lot.unpark_all()

    def leave(self, watched: Watched) -> None:
        """Stop watching for this attempt; the last one closes the subscription."""
        ear = self._ears.get(watched.run_id)
        if ear is None:
            return
        ear.members.discard(watched)
        ear.behind.discard(watched)
        if not ear.members:
            del self._ears[watched.run_id]
            ear.scope.cancel()

    async def _watch(self, ear: _Ear) -> None:
        """Listen for as long as anybody does; a server that does not answer is asked again."""
        with ear.scope:
            while True:
                try:
                    await self._listen(ear)
                except BrokerError as error:
                    log.debug("run %s is not watched now: %s", ear.run_id, error)
                    await trio.sleep(PAUSE_AFTER_ERROR)

    async def _listen(self, ear: _Ear) -> None:
        async with self._broker.listen(history_subject(ear.run_id), ear.heard):
            while True:
                if ear.behind:
                    await self._catch_up(ear)
                else:
                    await ear.lot.park()

    async def _catch_up(self, ear: _Ear) -> None:
        behind, ear.behind = ear.behind, set()
        try:
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
