"""Following a run: woken by its history, with a slow poll as a net.

Neither alone is enough: a run that the engine cancels by its deadline publishes nothing (contract
H27), and a poll alone is late.

::

    listen       from here on nothing is missed: a message sets a flag, whatever is done meanwhile
    look         at what is stored, which alone is the truth
    wait         for a message, or ``POLL`` seconds; then look again

A message only wakes. What it says is not taken for the truth, because it may come before the
snapshot that it tells of, and because the connection may have been away when another one came
(``transport/news``).

Listening is a core subscription: it costs the server no consumer, and nothing to leave behind.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Self, final

import trio

from trio_dagnats.client.schedule import is_scheduled
from trio_dagnats.errors import EngineError, WireError
from trio_dagnats.logs import Log
from trio_dagnats.transport.news import News
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.transport.port import Broker, Message
from trio_dagnats.wire.events import EventType, HistoryEvent, parse_event
from trio_dagnats.wire.names import WORKFLOW_HISTORY, history_subject
from trio_dagnats.wire.run import WorkflowRun

log = Log("trio_dagnats.client")

POLL = 1.0
"""Seconds between two looks without a message; so late at most is an end that nobody tells."""
FIRST_LOOK = 0.005
"""Seconds between an event and the first look at the snapshot; grows up to ``POLL``."""
APPEARS_WITHIN = 10.0
"""Seconds that an engine has to store a run that was started. After that it is not waited for,
unless it is a scheduled one: those may take months.
"""
ENDS = frozenset(
    {EventType.WORKFLOW_COMPLETED, EventType.WORKFLOW_FAILED, EventType.WORKFLOW_CANCELLED}
)
"""Events after which a run has no more; that its snapshot says so too may take a moment."""

Snapshot = Callable[[], Awaitable[WorkflowRun | None]]
"""Reads a run's snapshot anew, None while there is none."""


async def wait_for_end(broker: Broker, run_id: str, snapshot: Snapshot) -> WorkflowRun:
    """Wait until a run's snapshot is terminal, and return it.

    Called by ``Run.wait``, which bounds it. After a message that tells of an end the looks come
    quickly (5 ms, then ever slower): the snapshot follows within milliseconds.

    Raises:
        EngineError: no such run has appeared within ``APPEARS_WITHIN`` seconds, and it is not a
            scheduled one.
        BrokerError: the server did not answer in time.
    """
    news = News(_ends)
    appears_by = trio.current_time() + APPEARS_WITHIN
    pause = POLL
    async with broker.listen(history_subject(run_id), news.hear):
        while True:
            found = await snapshot()
            if found is not None and found.status.is_terminal:
                return found
            late = found is None and trio.current_time() > appears_by
            if late and not await is_scheduled(broker, run_id):
                raise EngineError(
                    f"run {run_id} is not stored: there is no such run, or no engine is running"
                )
            # The event can be earlier than the snapshot that it announces.
            pause = FIRST_LOOK if news.heard else min(pause * 2, POLL)
            news.forget()
            await news.wait(pause)


@final
class Events:
    """An iterator over the events of a run; holds nothing between two of them.

    It may be left at any time, as there is nothing open between two events: it remembers the
    sequence of the last one and reads what came since. So events are never lost, however slow
    the reader is, and a gap in the connection makes no difference.

    It ends after an event of ``ENDS``. A run that was cancelled by its deadline has none: then the
    snapshot says that it is over, and what is stored by then is read a last time.
    """

    def __init__(self, broker: Broker, run_id: str, snapshot: Snapshot) -> None:
        self._broker = broker
        self._run_id = run_id
        self._snapshot = snapshot
        self._seen = 0
        self._found: deque[HistoryEvent] = deque()
        self._over = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> HistoryEvent:
        """Return the next event, waiting for it.

        Raises:
            StopAsyncIteration: the run has ended.
            BrokerError: the server did not answer in time.
        """
        if not self._found and not self._over:
            await self._wait()
        if not self._found:
            raise StopAsyncIteration
        event = self._found.popleft()
        self._over = self._over or event.type in ENDS
        return event

    async def _wait(self) -> None:
        """Wait until there are events, or none will come.

        The subscription lives for this wait only; it is made before the look, so that nothing falls
        between the two.
        """
        news = News()
        async with self._broker.listen(history_subject(self._run_id), news.hear):
            while True:
                news.forget()
                if await self._read():
                    return
                if not await news.wait(POLL) and await self._ended_silently():
                    self._over = not await self._read()
                    return

    async def _read(self) -> bool:
        """Read what came since the last look; say whether there was anything."""
        found, self._seen = await read_history(self._broker, self._run_id, self._seen)
        self._found.extend(found)
        return bool(found)

    async def _ended_silently(self) -> bool:
        """Say whether the run is over by its snapshot, whatever its history says."""
        found = await self._snapshot()
        return found is not None and found.status.is_terminal


async def read_history(
    broker: Broker, run_id: str, after: int = 0
) -> tuple[list[HistoryEvent], int]:
    """Read a run's events after a sequence; return them and the last sequence.

    What is no event is left out, with a line in the log.
    """
    records = await broker.records(
        WORKFLOW_HISTORY,
        history_subject(run_id),
        after=after,
        deadline=deadline_in(),
    )
    found: list[HistoryEvent] = []
    for record in records:
        try:
            found.append(parse_event(record.body))
        except WireError as error:  # anybody may write there: one message hides none of the others
            log.warning("run %s: message %d is left out: %s", run_id, record.sequence, error)
    return found, records[-1].sequence if records else after


def _ends(message: Message) -> bool:
    """Say whether a message may tell of an end.

    A search in its bytes is enough: one too many costs one look.
    """
    return any(kind.value.encode() in message.body for kind in ENDS)
