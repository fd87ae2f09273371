"""Storing the outcome of an attempt: one per attempt, across workers (design 8.6).

A first send goes plain when its lease outlives a dead connection: by the time another worker may
speak, nothing of ours can arrive any more. Everything else is conditional on the history being
what we know, beginning with our own ``step.started``; what came in between is read and judged::

    settle ── plain? ── stored, and by us ────────────────────────────────────> STORED
      │         │ a duplicate that may be another's, or a conflict of a send after the first
      │         v
      │        look ── ours is there ─────────────────────────────────────────> STORED
      │         │  └── an outcome of this dispatch, or the run is over ───────> ELSEWHERE
      │         v
      └──> conditional ── stored ─────────────────────────────────────────────> STORED
             │  ^   └── a conflict, or a duplicate: look again, and if nothing
             └──┘       of that concerns us, send with the newer condition
                no answer until the lease ends, wherever it was asked ────────> NOT_STORED

Why may a duplicate not count as success? The server says it of an id that it has seen, and the id
may be an earlier iteration's, or another worker's: then nothing of ours is stored, and a run that
is told nothing more hangs (design 8.1). What has been read is the only proof. The answer to a
message that *we* have sent twice is another matter: it counts as our own duplicate.

Why not a condition on every send? All steps of a run share a subject, so each event of a sibling
would be a conflict, and cost a read. The ordinary first send needs none: while its lease stands
nobody else may speak, and it dies with its connection before the lease ends.

The loop of conditional sends is bounded by the lease. It gets on because our own ``step.started``
is in the history after the task: what is known then is the newest record that was read. A claim
that knows of nothing sends with 0, which fits only a run that has no history at all. An id that is
another's is refused until the server has forgotten it (5 s for the history).
"""

from collections import defaultdict
from dataclasses import dataclass
from enum import Enum, auto
from typing import final

import trio

from trio_dagnats.attempt.lease import surely_in_time
from trio_dagnats.attempt.past import read_past
from trio_dagnats.errors import Conflict, NotStored
from trio_dagnats.transport.events import store_event
from trio_dagnats.transport.port import Broker, Record, Stored
from trio_dagnats.wire.events import Event
from trio_dagnats.wire.names import MSG_ID, WORKFLOW_HISTORY
from trio_dagnats.wire.task import Task


class Verdict(Enum):
    """What became of an outcome."""

    STORED = auto()
    """Ours is in the history."""
    ELSEWHERE = auto()
    """Another delivery of this dispatch has settled it, or the run has ended: nothing to add."""
    NOT_STORED = auto()
    """No acknowledgement while the lease stood: it may or may not be there."""


def is_ours(stored: Stored) -> bool:
    """Say whether an acknowledgement is of our own message, by what it says alone.

    A first send that is called a duplicate is never success unread: another worker may have stored
    an event under the same id. Of a message that was sent again, we may be our own duplicate.
    """
    return stored.resent or not stored.duplicate


@final
@dataclass(slots=True, kw_only=True)
class Claim:
    """What this worker knows about the history of a dispatch, and until when it may speak.

    Made by ``execution.effects`` for each storing of an outcome; only :class:`Settler` changes it,
    and only ``known``, which each reading moves on.

    ``dispatch`` is the task message's stream sequence, ``published_ns`` the wall-clock time at
    which the server stored it: nothing older in the history is about it.

    ``known`` is the newest history sequence it has seen; ``first`` says that this is the first
    delivery; ``until`` is the end of the lease (trio time).
    """

    task: Task
    dispatch: int
    published_ns: int
    first: bool
    until: float
    known: int = 0


@final
class _RunLock:
    """All steps of a run share one subject, so its conditional sends come one after the other.

    Else each would be the others' conflict, and cost them a read. It lives while somebody uses it.
    """

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.users = 0


@final
class Settler:
    """Stores outcomes for all attempts of one worker.

    For all that do not go the fast path, which has the plain send only and the same judgement of
    its answer (:func:`is_ours`). What it raises is what no reading can mend: an event that is too
    large, a stream that is gone.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._locks: defaultdict[str, _RunLock] = defaultdict(_RunLock)

    async def settle(self, claim: Claim, event: Event) -> Verdict:
        """Store the event, or find out that it must not be stored.

        Args:
            claim: what is known about the dispatch's history; its ``known`` moves on.
            event: the outcome, under its id.

        Raises:
            BrokerError: any but ``NotStored`` and ``Conflict``, which are part of the rules.

        Cancellation: the event may or may not be stored; callers shield it until the lease ends.
        """
        now, abort_after = trio.current_time(), self._broker.abort_after
        plain = claim.first and surely_in_time(claim.until, now, abort_after)
        try:
            if plain and is_ours(
                await store_event(
                    self._broker, event, resend_expect=claim.known, deadline=claim.until
                )
            ):
                return Verdict.STORED
            return await self._in_turn(claim, event, look_first=plain)
        except Conflict:
            return await self._in_turn(claim, event, look_first=True)
        except NotStored:
            return Verdict.NOT_STORED

    async def _in_turn(self, claim: Claim, event: Event, *, look_first: bool) -> Verdict:
        lock = self._locks[claim.task.run_id]
        lock.users += 1
        try:
            async with lock.lock:
                verdict = await self._look(claim, event) if look_first else None
                while verdict is None:
                    verdict = await self._conditional(claim, event)
                return verdict
        except NotStored:
            return Verdict.NOT_STORED
        finally:
            lock.users -= 1
            if not lock.users:
                del self._locks[claim.task.run_id]

    async def _conditional(self, claim: Claim, event: Event) -> Verdict | None:
        """Send once; None if the history has moved on in a way that does not concern us."""
        try:
            stored = await store_event(
                self._broker, event, expect_last=claim.known, deadline=claim.until
            )
        except Conflict:
            return await self._look(claim, event)
        if not stored.duplicate:
            return Verdict.STORED
        claim.known = 0  # the id is stored, but we have not seen it: read from the task on
        return await self._look(claim, event)

    async def _look(self, claim: Claim, event: Event) -> Verdict | None:
        """Read and judge; None if the event may still be sent."""
        return _judge(await self._news(claim, event), claim, event)

    async def _news(self, claim: Claim, event: Event) -> list[Record]:
        """Read what the history got since ``claim.known`` and move that on."""
        news = await self._broker.records(
            WORKFLOW_HISTORY,
            event.subject,
            after=claim.known,
            since_ns=0 if claim.known else claim.published_ns,
            deadline=claim.until,
        )
        if news:
            claim.known = news[-1].sequence
        return news


def _judge(news: list[Record], claim: Claim, event: Event) -> Verdict | None:
    """Say what the news mean for our event, None if it may still be sent.

    Our own id is looked for first: what was sent before a reconnect may have been stored, and the
    engine may have ended the run upon it.
    """
    if any(record.headers.get(MSG_ID) == event.msg_id for record in news):
        return Verdict.STORED
    past = read_past(news, claim.task, claim.dispatch)
    return Verdict.ELSEWHERE if past.settled or past.run_ended else None
