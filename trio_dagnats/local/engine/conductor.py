"""What the engine does with messages of a run: load it, apply, save, send, acknowledge.

For the items of one run, in this order::

    1  known in memory, or restored: snapshot, its unsent effects, the history since
    2  is an item what the last transition answered?  then its effects are sent once more
    3  the others are applied by the core, one after the other, joined to one transition
    4  SAVE   the snapshot with the outbox, if its revision is the one that was loaded
    5  SEND   the outbox; returns when all of it is stored
    6  ACK    all items, and their credits are given back

And what if the engine dies in between?

============  ====================================================================================
it dies       what the next engine finds
============  ====================================================================================
before 4      nothing has happened; the items come again when their ``ack_wait`` (5 s) is over
4 to 5        the items come again, and the book names them as causes: step 2 sends what is missing
5 to 6        the same, and step 2 finds all of it sent
after 6       nothing is left to do
============  ====================================================================================

Two invariants make step 2 enough. A run's items are dealt with one after the other (``Lanes``), so
there is only one last transition. And nothing is saved before the outbox of the snapshot before has
been sent (step 5 comes before the next step 4, and :meth:`Conductor._restore` sends it after a
crash), so only the newest outbox can be unsent.

Why not send first and save then? A task that was sent could be answered before the snapshot says
that it was dispatched; and a crash in between would dispatch it again with another nonce.
"""

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import final

from pydantic_core import from_json

from trio_dagnats.errors import BrokerError, TooLarge, UsageError, WireError
from trio_dagnats.local.engine.core import transitions
from trio_dagnats.local.engine.core.state import RunState
from trio_dagnats.local.engine.core.transitions import (
    HANDLED,
    Applied,
    Start,
)
from trio_dagnats.local.engine.locks import lock_key
from trio_dagnats.local.engine.runs import Runs
from trio_dagnats.local.engine.sender import Sender
from trio_dagnats.local.engine.starts import read_spawn, read_start, spawned
from trio_dagnats.logs import Log
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.transport.port import Broker, Delivery
from trio_dagnats.wire.events import EventType, HistoryEvent, parse_event
from trio_dagnats.wire.names import MSG_ID, WORKFLOW_HISTORY, history_subject
from trio_dagnats.wire.subjects import is_id
from trio_dagnats.wire.text import MISREAD, NS, compact

log = Log("trio_dagnats.local")

TRY_AGAIN = 0.5
"""Seconds until a message comes again that could not be dealt with.

Long enough for a server that is busy or restarts, short enough for a person who waits.
"""
BEGINS = frozenset({EventType.WORKFLOW_STARTED, EventType.WORKFLOW_SPAWN})
"""Types that may be for a run that is not stored yet; any other one is not answered then."""
CHILD_ENDS = frozenset({EventType.CHILD_COMPLETED, EventType.CHILD_FAILED})
"""Types whose event the shell completes with the child's output before it is applied."""


@final
@dataclass(frozen=True, slots=True)
class Item:
    """Something for a run: an event, or a timer that is due; and what to do when it is done.

    Attributes:
        what: an event, or the id of a timer that is due.
        delivery: its message, to be acknowledged when the consequences are stored.
        done: gives the credit back to the feed that it came from; called once.
    """

    what: Applied | str
    delivery: Delivery
    done: Callable[[], None]

    @property
    def cause(self) -> str:
        """What the run's book calls it."""
        return self.what if isinstance(self.what, str) else str(self.what.sequence)


@final
class Conductor:
    """Reads deliveries and carries runs on.

    Called by the lanes of ``engine._start``: :meth:`work` never runs twice at once for one run.
    Only this class calls ``Runs.save``, so only it writes runs.
    """

    def __init__(self, broker: Broker, sender: Sender) -> None:
        self._broker = broker
        self._runs = Runs(broker)
        self._sender = sender

    def read_event(self, delivery: Delivery) -> tuple[str, Applied] | None:
        """Read a history message and the run it is for; None for one that changes no run.

        Called by the transport's callback: it must not wait, and nothing that it reads may
        raise.

        A spawn is found in its parent's history but goes to the lane of the child, whose run it
        begins.
        """
        what = _read(
            delivery.body, delivery.stream_sequence, delivery.headers, delivery.published_ns
        )
        if what is None:
            return None
        if what.event.type == EventType.WORKFLOW_SPAWN:
            child = spawned(what.event)
            return None if child is None else (child, what)
        return what.event.run_id, what

    def read_timer(self, delivery: Delivery) -> tuple[str, float] | None:
        """Read a timer; return its run and the seconds that are left.

        Called like :meth:`read_event`. What is left may be negative: the engine was away. The
        time counts from when the server stored the timer, so an engine's restart does not start
        it anew.
        """
        with suppress(*MISREAD):
            found = from_json(delivery.body)
            run_id, duration = str(found["run_id"]), int(found["duration_ms"]) * 1_000_000
            left = (delivery.published_ns + duration - self._broker.time_ns()) / NS
            if is_id(run_id):
                return run_id, left
        log.warning("%s holds no timer; it is left out", delivery.subject)
        return None

    @staticmethod
    def timer_id(delivery: Delivery) -> str:
        """Return the id by which a run knows a timer."""
        return delivery.headers.get(MSG_ID, "")

    async def work(self, run_id: str, items: Sequence[Item]) -> None:
        """Deal with items of a run; they come again if the server fails us.

        What the server cannot be asked with is left out: it would end the engine each time.

        Three ends: done (ACK), the server failed us (NAK with ``TRY_AGAIN``, and the run is
        forgotten so that the next try loads it as it is stored), or nothing can be asked with
        such data (ACK, with an error in the log). Any other error is the engine's own and ends
        the engine: ``EngineError`` for a snapshot that somebody else has written is among them.

        Cancellation: the items are not answered here; the lane hands them back.
        """
        try:
            await self._apply(run_id, items)
        except BrokerError as error:
            log.warning("run %s: %s; trying again", run_id, error, extra={"run": run_id})
            self._runs.forget(run_id)
            for item in items:
                item.delivery.nak(TRY_AGAIN)
        except UsageError as error:
            log.error("run %s: %s; left out", run_id, error, extra={"run": run_id})  # noqa: TRY400
            self._runs.forget(run_id)
            for item in items:
                item.delivery.ack()
        else:
            for item in items:
                item.delivery.ack()
        for item in items:
            item.done()

    async def _apply(self, run_id: str, items: Sequence[Item]) -> None:
        """Carry a run on by some items; the order is the one in the module's docstring.

        ``causes`` are those of the run's last transition. An item among them was applied, but was
        not acknowledged; whether its effects were sent nobody remembers, so they are sent again
        where they are missing. Older items that come twice are not among them and change nothing
        (``book.applied``).
        """
        state = self._runs.known(run_id)
        if state is None:
            state = await self._restore(run_id, items[0].what)
        causes = frozenset(state.book.causes if state is not None else ())
        if state is not None and any(item.cause in causes for item in items):
            await self._sender.send_again(state)
        fresh = [item.what for item in items if item.cause not in causes]
        state = await self._carry_on(run_id, state, fresh)
        if state is None or state.run.status.is_terminal:
            self._runs.forget(run_id)

    async def _restore(self, run_id: str, what: Applied | str) -> RunState | None:
        """Load a run and bring it up to date: an engine before us may have been killed.

        What it had in hand comes again only later, after newer events; so everything before this
        event is read from the history, in order.

        A run that has ended is returned as it is: its effects are sent again only if one of its
        causes comes, in :meth:`_apply`. A run that is not stored needs no history if this event
        begins it. If it does not, the start may be in the history, unread by the engine that was
        killed.
        """
        state = await self._runs.load(run_id)
        begins = not isinstance(what, str) and what.event.type in BEGINS
        if (state is None and begins) or (state is not None and state.run.status.is_terminal):
            return state
        if state is not None and state.book.outbox:
            await self._sender.send_again(state)
        records = await self._broker.records(
            WORKFLOW_HISTORY,
            history_subject(run_id),
            after=state.book.applied if state is not None else 0,
            deadline=deadline_in(),
        )
        before = [r for r in records if isinstance(what, str) or r.sequence < what.sequence]
        read = [_read(r.body, r.sequence, r.headers, r.time_ns) for r in before]
        return await self._carry_on(run_id, state, [found for found in read if found is not None])

    async def _carry_on(
        self, run_id: str, state: RunState | None, whats: Sequence[Applied | str]
    ) -> RunState | None:
        """Apply events and timers, save once, send: a wide map would else write itself too often.

        One that makes the run too large to be stored is found by taking them one by one.

        The rule that begins or changes a run is asked for one thing after another, each on the
        result of the one before. If the result is too large for the server, everything is done
        anew in single steps: those that fit are saved and sent, and the one that does not fails
        its run.

        Raises:
            EngineError: somebody else has written the run.
            BrokerError: the server did not answer; nothing may be assumed, so the caller forgets
                the run.
        """
        new = state
        for what in whats:
            then = await self._next(run_id, new, what)
            if then is not None and then is not new:
                new = then if new is None or new is state else transitions.join(new, then)
        if new is None or new is state:
            return new
        try:
            await self._runs.save(new)
        except TooLarge as error:
            if len(whats) > 1:
                for what in whats:
                    state = await self._carry_on(run_id, state, [what])
                return state
            new = await self._overflow(state, whats[0], error)
        await self._sender.send(new)
        return new

    async def _next(
        self, run_id: str, state: RunState | None, what: Applied | str
    ) -> RunState | None:
        """Apply one event or timer; return the new state, None if there is no run.

        It is the state that came in if nothing has changed.

        Here the shell adds what rules may not ask for: the time for a timer, randomness, the output
        of a child whose end the event tells.
        """
        if isinstance(what, str):
            now_ns = self._broker.time_ns()
            return state and transitions.fire(state, what, now_ns, _nonce)
        if state is not None:
            if what.event.type in CHILD_ENDS:
                what = what.model_copy(update={"event": await self._with_output(what.event)})
            return transitions.apply(state, what, _nonce)
        if what.event.type not in BEGINS:
            log.debug("%s of the unknown run %s", what.event.type, run_id)
            return None
        return await self._start(run_id, what)

    async def _start(self, run_id: str, what: Applied) -> RunState | None:
        """Begin a run, or return None for a child whose parent is over.

        A run that cannot start is stored all the same, as failed with the reason: its id has been
        given out, and somebody may wait for it.
        """
        if what.event.type == EventType.WORKFLOW_SPAWN:
            begun = await read_spawn(self._broker, self._runs, what.event)
            what = what.model_copy(update={"event": replace(what.event, run_id=run_id)})
        else:
            begun = await read_start(self._broker, what.event)
        if begun is None:
            return None  # the parent is over
        if begun.problem:
            log.warning("run %s cannot start: %s", run_id, begun.problem)
        return transitions.start(await self._with_lock(begun, run_id), what, _nonce)

    async def _with_lock(self, begun: Start, run_id: str) -> Start:
        """Claim the lock of a singleton, and say which run was in the way.

        Before the run is stored, because its first transition depends on the answer. A crash in
        between leaves a lock whose holder is not stored yet; ``Locks`` knows such a one by its
        history.
        """
        single = begun.definition.singleton
        if single is None or begun.problem:
            return begun
        lock = lock_key(begun.definition, begun.given)
        other = await self._sender.locks.claim(lock, run_id, single.mode)
        return begun.model_copy(update={"lock": lock, "in_the_way": other})

    async def _with_output(self, event: HistoryEvent) -> HistoryEvent:
        """Put a child's output into the event of its end, which does not hold it.

        The engine writes the end of a child without its output, which could be as large as a
        message may be. The child's snapshot is stored before its end is told, so the output is
        there by now.
        """
        end: object = json.loads(event.payload or b"{}")
        if not isinstance(end, dict):
            return event
        child_id = str(end.get("child_run_id", ""))
        child = await self._runs.peek(child_id) if is_id(child_id) else None
        if child is not None and event.type == EventType.CHILD_COMPLETED:
            end["output"] = child.run.output(child.book.definition)
        return replace(event, payload=compact(end))

    async def _overflow(
        self, old: RunState | None, what: Applied | str, error: TooLarge
    ) -> RunState:
        """Fail a run whose next snapshot does not fit, in place of the transition that made it so.

        Raises:
            TooLarge: there is no state to fail (the run's very first snapshot is too large), or a
                timer has made it so. It is tried again and again then, with a line in the log.
        """
        if old is None or isinstance(what, str):
            raise error
        text = f"the outputs of this run are too large together: {error}"
        new = transitions.overflow(old, what, text, _nonce)
        await self._runs.save(new)
        return new


def _read(body: bytes, sequence: int, headers: Mapping[str, str], time_ns: int) -> Applied | None:
    """Read a message of the history; None for one that changes no run or is no event.

    Anybody may write there, so nothing is believed: what cannot be read is left out with a warning
    and stays where it is, and a run's name must be one that can stand in a subject.
    """
    try:
        event = parse_event(body)
    except WireError as error:
        log.warning("history message %d: %s; it stays there, unread", sequence, error)
        return None
    if event.type not in HANDLED:
        return None
    if not is_id(event.run_id):
        log.warning("history message %d: no run is called %r", sequence, event.run_id)
        return None
    return Applied(event=event, sequence=sequence, msg_id=headers.get(MSG_ID, ""), time_ns=time_ns)


def _nonce() -> str:
    return secrets.token_hex(16)
