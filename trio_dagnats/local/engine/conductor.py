"""What the engine does with each message: load the run, apply, save, send, acknowledge."""

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

from trio_dagnats.errors import BrokerError, TooLarge, WireError
from trio_dagnats.local.engine import core
from trio_dagnats.local.engine.core import HANDLED, Applied
from trio_dagnats.local.engine.runs import Runs
from trio_dagnats.local.engine.sender import MSG_ID, Sender
from trio_dagnats.local.engine.starts import read_start
from trio_dagnats.local.engine.state import RunState
from trio_dagnats.transport.patience import soon
from trio_dagnats.transport.port import Broker, Delivery
from trio_dagnats.wire.events import EventType, parse_event
from trio_dagnats.wire.names import WORKFLOW_HISTORY, history_subject
from trio_dagnats.wire.text import NS

log = logging.getLogger("trio_dagnats.local")

TRY_AGAIN = 0.5
"""Seconds until a message comes again that could not be dealt with."""


@final
@dataclass(frozen=True, slots=True)
class Item:
    """Something for a run: an event, or a timer that is due; and what to do when it is done."""

    what: Applied | str
    delivery: Delivery
    done: Callable[[], None]


@final
class Conductor:
    """Reads deliveries and carries runs on."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._runs = Runs(broker)
        self._sender = Sender(broker)

    def read_event(self, delivery: Delivery) -> tuple[str, Applied] | None:
        """Read a history message; None for one that changes no run."""
        what = _read(
            delivery.body, delivery.stream_sequence, delivery.headers, delivery.published_ns
        )
        return None if what is None else (what.event.run_id, what)

    def read_timer(self, delivery: Delivery) -> tuple[str, float] | None:
        """Read a timer; return its run and the seconds that are left."""
        try:
            found = json.loads(delivery.body)
            run_id, duration = str(found["run_id"]), int(found["duration_ms"]) * 1_000_000
        except (ValueError, KeyError, TypeError):
            log.warning("%s holds no timer; it is left out", delivery.subject)
            return None
        return run_id, (delivery.published_ns + duration - self._broker.time_ns()) / NS

    @staticmethod
    def timer_id(delivery: Delivery) -> str:
        """Return the id by which a run knows a timer."""
        return delivery.headers.get(MSG_ID, "")

    async def work(self, run_id: str, item: Item) -> None:
        """Deal with one item of a run; it comes again if the server fails us."""
        try:
            await self._apply(run_id, item.what)
        except BrokerError as error:
            log.warning("run %s: %s; trying again", run_id, error, extra={"run": run_id})
            self._runs.forget(run_id)
            item.delivery.nak(TRY_AGAIN)
        else:
            item.delivery.ack()
        item.done()

    async def _apply(self, run_id: str, what: Applied | str) -> None:
        state = self._runs.known(run_id)
        if state is None:
            state = await self._restore(run_id, what)
        cause = what if isinstance(what, str) else str(what.sequence)
        if state is not None and state.book.cause == cause:
            await self._sender.send_again(state)
        else:
            state = await self._step(state, what)
        if state is None or state.run.status.is_terminal:
            self._runs.forget(run_id)

    async def _restore(self, run_id: str, what: Applied | str) -> RunState | None:
        """Load a run and bring it up to date: an engine before us may have been killed.

        What it had in hand comes again only later, after newer events; so everything before this
        event is read from the history, in order.
        """
        state = await self._runs.load(run_id)
        starts = not isinstance(what, str) and what.event.type == EventType.WORKFLOW_STARTED
        if (state is None and starts) or (state is not None and state.run.status.is_terminal):
            return state
        if state is not None and state.book.outbox:
            await self._sender.send_again(state)
        missed = await self._broker.records(
            WORKFLOW_HISTORY,
            history_subject(run_id),
            after=state.book.applied if state is not None else 0,
            deadline=soon(),
        )
        for record in missed:
            if not isinstance(what, str) and record.sequence >= what.sequence:
                break
            found = _read(record.body, record.sequence, record.headers, record.time_ns)
            if found is not None:
                state = await self._step(state, found)
        return state

    async def _step(self, state: RunState | None, what: Applied | str) -> RunState | None:
        """Apply, save and send one event or timer."""
        new = await self._next(state, what)
        if new is not None and new is not state:
            new = await self._save(state, new, what)
            await self._sender.send(new)
        return new

    async def _next(self, state: RunState | None, what: Applied | str) -> RunState | None:
        if isinstance(what, str):
            now_ns = self._broker.time_ns()
            return state and core.fire(state, what, now_ns, _nonce)
        if state is not None:
            return core.apply(state, what, _nonce)
        if what.event.type != EventType.WORKFLOW_STARTED:
            log.debug("%s of the unknown run %s", what.event.type, what.event.run_id)
            return None
        return await self._start(what)

    async def _start(self, what: Applied) -> RunState:
        definition, given, problem = await read_start(self._broker, what.event)
        if problem:
            log.warning("run %s cannot start: %s", what.event.run_id, problem)
            return core.refuse(definition, problem, what, _nonce)
        return core.start(definition, given, what, _nonce)

    async def _save(self, old: RunState | None, new: RunState, what: Applied | str) -> RunState:
        try:
            await self._runs.save(new)
        except TooLarge as error:
            if old is None or isinstance(what, str):
                raise
            text = f"the outputs of this run are too large together: {error}"
            new = core.overflow(old, what, text, _nonce)
            await self._runs.save(new)
        return new


def _read(body: bytes, sequence: int, headers: Mapping[str, str], time_ns: int) -> Applied | None:
    try:
        event = parse_event(body)
    except WireError as error:
        log.warning("history message %d: %s; it stays there, unread", sequence, error)
        return None
    if event.type not in HANDLED:
        return None
    return Applied(event=event, sequence=sequence, msg_id=headers.get(MSG_ID, ""), time_ns=time_ns)


def _nonce() -> str:
    return secrets.token_hex(16)
