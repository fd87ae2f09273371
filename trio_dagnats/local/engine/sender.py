"""Sending what a transition has to send, and finding out after a crash what was sent already."""

from itertools import groupby
from typing import final

import trio

from trio_dagnats.errors import plain
from trio_dagnats.local.engine.messages import Outgoing, render
from trio_dagnats.local.engine.state import Effect, Kind, RunState
from trio_dagnats.transport.patience import soon
from trio_dagnats.transport.port import Broker, Record
from trio_dagnats.wire.names import (
    SLEEP_TIMERS,
    TASK_QUEUES,
    WORKFLOW_HISTORY,
    history_subject,
)
from trio_dagnats.wire.text import NS

WINDOW_NS = 100 * NS
"""For so long the server of a work queue surely knows an id (its window is 120 s)."""
MSG_ID = "Nats-Msg-Id"


@final
class Sender:
    """Stores effects under their ids."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def send(self, state: RunState) -> None:
        """Send all effects of the state's transition: announcements first, then tasks.

        Raises:
            NotStored: not acknowledged in time; sending again is safe.
        """
        await self._send(state, state.book.outbox)

    async def send_again(self, state: RunState) -> None:
        """Send what is not there yet: the engine was killed before it had acknowledged.

        Raises:
            BrokerError: the server did not answer in time.
        """
        events = await self._ids(WORKFLOW_HISTORY, history_subject(state.run.run_id))
        timers = await self._ids(SLEEP_TIMERS, f"sleep.{state.run.run_id}.>")
        # A retry's task has the id of its timer, so each kind is looked for in its own stream.
        sent = {Kind.TASK: set[str](), Kind.TIMER: timers}
        missing = [e for e in state.book.outbox if e.msg_id not in sent.get(e.kind, events)]
        if self._broker.time_ns() - state.book.at_ns > WINDOW_NS:
            missing = [e for e in missing if not await self._is_known(e, state)]
        await self._send(state, tuple(missing))

    async def _send(self, state: RunState, effects: tuple[Effect, ...]) -> None:
        for _, wave in groupby(effects, lambda effect: effect.kind):
            messages = [render(effect, state) for effect in wave]
            if len(messages) == 1:
                await self._store(messages[0])
                continue
            try:
                async with trio.open_nursery() as nursery:
                    for message in messages:
                        nursery.start_soon(self._store, message)
            except BaseExceptionGroup as group:
                found = plain(group)
                raise found from found.__cause__

    async def _store(self, message: Outgoing) -> None:
        await self._broker.store(
            message.subject,
            message.body,
            msg_id=message.msg_id,
            headers=message.headers,
            deadline=soon(),
        )

    async def _ids(self, stream: str, subject: str) -> set[str]:
        found = await self._records(stream, subject)
        return {record.headers.get(MSG_ID, "") for record in found}

    async def _is_known(self, effect: Effect, state: RunState) -> bool:
        """Say whether a task is queued, or was taken by a worker already."""
        if effect.kind is not Kind.TASK:
            return False
        subject = render(effect, state).subject
        queued = await self._broker.last_record(TASK_QUEUES, subject, deadline=soon())
        if queued is not None and queued.headers.get(MSG_ID) == effect.msg_id:
            return True
        mark = f".{effect.step_id}.".encode()
        found = await self._records(
            WORKFLOW_HISTORY, history_subject(state.run.run_id), state.book.applied
        )
        return any(mark in record.headers.get(MSG_ID, "").encode() for record in found)

    async def _records(self, stream: str, subject: str, after: int = 0) -> list[Record]:
        return await self._broker.records(stream, subject, after=after, deadline=soon())
