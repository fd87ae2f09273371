"""Sending what a transition has to send, and finding out after a crash what was sent already.

How each kind of effect is done, and how it is found out after a crash whether it was:

==================== ================================== =======================================
effect               done by                            after a crash
==================== ================================== =======================================
events, timers,      storing a message under its id     its subject is read; missing ids are
dead letters                                            stored
tasks                the same, in the work queue        nobody may read that stream, so the
                                                        server is trusted to drop a second one:
                                                        for 120 s it knows the id. Later: is it
                                                        queued? did the history move on?
turns (rate)         asking ``Rates``, then a timer     no timer: asked again, which costs a turn
waiters, slots,      a key in a bucket                  done again: twice is as once
locks, tokens
notices to people    a core message                     sent again; people may see it twice
==================== ================================== =======================================

What is no message is done first, in the order of the outbox. All messages but the end of the run
are then stored side by side: in which order the server gets those of one transition is open (the
core puts tasks at the end of the outbox, but that decides nothing here). The end of the run is
stored last of all, when everything else is.
"""

from collections.abc import Iterable, Sequence
from typing import final

import trio

from trio_dagnats.errors import asked_at_once
from trio_dagnats.local.engine.core.messages import Outgoing, approval, render, timer
from trio_dagnats.local.engine.core.state import Effect, Kind, RunState
from trio_dagnats.local.engine.correlator import Correlator
from trio_dagnats.local.engine.locks import Locks
from trio_dagnats.local.engine.rates import Rates
from trio_dagnats.local.engine.slots import Slots
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.names import (
    DEAD_LETTERS,
    MSG_ID,
    SLEEP_TIMERS,
    TASK_QUEUES,
    WORKFLOW_HISTORY,
)
from trio_dagnats.wire.text import NS, compact

WINDOW_NS = 100 * NS
"""For so long the server of a work queue surely knows an id (its window is 120 s).

The margin of 20 s is for clocks: the transition's time may be an event's, by the server's clock,
and is compared with this machine's.
"""
TOKENS = "approval_tokens"
"""Bucket of the approvals that people are asked for; its entries live a week."""
AT_ONCE = 500
"""Messages of a map that are on their way at once.

A task for each of tens of thousands of items would be as many stores that wait; in portions
memory stays small, and the server is as busy as it can be.
"""
ASKED = frozenset(
    {
        Kind.WAITER,
        Kind.WAITER_GONE,
        Kind.APPROVAL_TOKEN,
        Kind.APPROVAL_GONE,
        Kind.APPROVAL_NOTICE,
        Kind.SLOT_WANTED,
        Kind.SLOT_FREED,
        Kind.LOCK_FREED,
    }
)
"""What is no message of a stream; doing it twice is as doing it once."""
STREAMS = {
    "history": WORKFLOW_HISTORY,
    "sleep": SLEEP_TIMERS,
    "dead": DEAD_LETTERS,
    "task": TASK_QUEUES,
}
"""By the first part of a subject: where :meth:`Sender._sent` looks for an id."""


@final
class Sender:
    """Stores effects under their ids, and does what is no message.

    Called by the conductor only, for one run by one lane at a time, for different runs side by
    side. So the objects that all runs share (slots, locks) have locks of their own inside.

    ``correlator`` is public because the engine feeds it with events, ``locks`` because a lock is
    claimed before there is a state. Both must be these very objects: what they know is in memory.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.correlator = Correlator(broker)
        self.locks = Locks(broker)
        self._slots = Slots(broker)
        self._rates = Rates(broker)

    async def load(self) -> None:
        """Read what an engine before us has left: waiters, and slots and who waits for them.

        Called once, before anything is read from the history.

        Raises:
            BrokerError: the server did not answer in time.
        """
        await self.correlator.load()
        await self._slots.load()

    async def send(self, state: RunState) -> None:
        """Send all effects of the state's transition, at once but for what has to be asked for.

        Called right after the state was saved. Returns when the server has stored everything, so
        the caller may acknowledge what the transition answers.

        Cancellation: what was sent stays sent. The rest is sent by :meth:`send_again`, for the
        cause is not acknowledged.

        Raises:
            BrokerError: not acknowledged in time; sending again is safe.
        """
        messages: list[Outgoing] = []
        for effect in state.book.outbox:
            if effect.kind in ASKED:
                await self._do(effect, state)
            elif effect.kind is Kind.RATE_WANTED:
                messages.append(await self._turn(effect, state))
            else:
                messages.extend(render(effect, state))
        await self._store_all(messages)

    async def send_again(self, state: RunState) -> None:
        """Send what is not there yet: the engine was killed before it had acknowledged.

        Called when the cause of a saved transition comes a second time, and when a run is
        loaded. It reads before it writes, as the server forgets ids: history and dead letters
        keep messages much longer than it knows duplicates, and a second ``step.queued`` would
        stay there for everybody to read.

        A task is stored again without a look while the server is sure to drop a second one. After
        that it might run twice, so first it is asked whether the queue holds it, or whether the
        step has had an event since: then some worker has taken it.

        Raises:
            BrokerError: the server did not answer in time.
        """
        for effect in state.book.outbox:
            if effect.kind in ASKED:
                await self._do(effect, state)
            elif effect.kind is Kind.RATE_WANTED:
                turn = timer(effect, state)
                if (turn.subject, turn.msg_id) not in await self._sent([turn]):
                    await self._store_all([await self._turn(effect, state)])
        messages = [m for e in state.book.outbox for m in _rendered(e, state)]
        sent = await self._sent(messages)
        missing = [m for m in messages if (m.subject, m.msg_id) not in sent]
        if self._broker.time_ns() - state.book.at_ns > WINDOW_NS:
            missing = [m for m in missing if not await self._is_taken(m, state)]
        await self._store_all(missing)

    async def _do(self, effect: Effect, state: RunState) -> None:
        """Do an effect that is no message of a stream.

        Each of these may be done twice, which is why nothing is remembered about having done it.
        """
        key = f"{state.run.run_id}.{effect.step_id}"
        match effect.kind:
            case Kind.WAITER:
                await self.correlator.add(effect, state)
            case Kind.WAITER_GONE:
                await self.correlator.remove(effect, state)
            case Kind.SLOT_WANTED:
                await self._slots.want(effect, state)
            case Kind.SLOT_FREED:
                await self._slots.free(effect.text)
            case Kind.LOCK_FREED:
                await self.locks.free(effect.text, state.run.run_id)
            case Kind.APPROVAL_TOKEN:
                body = compact(approval(effect, state))
                await self._broker.kv_put(TOKENS, key, body, deadline=deadline_in())
            case Kind.APPROVAL_GONE:
                await self._broker.kv_delete(TOKENS, key, deadline=deadline_in())
            case _:
                subject = state.book.definition.step(effect.step_id).approval.subject
                await self._broker.publish(subject, compact(approval(effect, state)))

    async def _turn(self, effect: Effect, state: RunState) -> Outgoing:
        """Ask when a task may go, and make the timer that lets it go then.

        The duration is not in the effect, because the core cannot know what other runs have taken.
        """
        wait_ms = await self._rates.turn(effect, state)
        return timer(effect.model_copy(update={"duration_ms": wait_ms}), state)

    async def _store_all(self, messages: Sequence[Outgoing]) -> None:
        """Store messages; the run's end after what led to it, such as a step's timeout."""
        for last in (False, True):
            await self._store_at_once([m for m in messages if m.last is last])

    async def _store_at_once(self, messages: Sequence[Outgoing]) -> None:
        """Store messages side by side, at most ``AT_ONCE`` of them; returns when all are stored.

        Raises:
            BrokerError: one of them is not; the others may or may not be.
        """
        if len(messages) == 1:
            await self._store(messages[0])
            return
        for start in range(0, len(messages), AT_ONCE):
            with asked_at_once():
                async with trio.open_nursery() as nursery:
                    for message in messages[start : start + AT_ONCE]:
                        nursery.start_soon(self._store, message)

    async def _store(self, message: Outgoing) -> None:
        """Store one message; the server drops it if it has had the id within its window."""
        await self._broker.store(
            message.subject,
            message.body,
            msg_id=message.msg_id,
            headers=message.headers,
            deadline=deadline_in(),
        )

    async def _sent(self, messages: Iterable[Outgoing]) -> set[tuple[str, str]]:
        """Return which of these are stored, by subject and id; tasks cannot be looked for.

        Each subject is read once as a whole: most messages of a transition share one.
        """
        found: set[tuple[str, str]] = set()
        for subject in {message.subject for message in messages}:
            stream = STREAMS[subject.partition(".")[0]]
            if stream != TASK_QUEUES:
                records = await self._broker.records(stream, subject, deadline=deadline_in())
                found |= {(subject, record.headers.get(MSG_ID, "")) for record in records}
        return found

    async def _is_taken(self, message: Outgoing, state: RunState) -> bool:
        """Say whether a task is queued, or was taken by a worker already."""
        if not message.subject.startswith("task."):
            return False
        queued = await self._broker.last_record(
            TASK_QUEUES, message.subject, deadline=deadline_in()
        )
        if queued is not None and queued.headers.get(MSG_ID) == message.msg_id:
            return True
        step_id = message.step_id
        found = await self._broker.records(
            WORKFLOW_HISTORY,
            f"history.{state.run.run_id}",
            after=state.book.applied,
            deadline=deadline_in(),
        )
        mark = f".{step_id}."
        return any(mark in record.headers.get(MSG_ID, "") for record in found)


def _rendered(effect: Effect, state: RunState) -> list[Outgoing]:
    """Write an effect's messages, none for what is no message."""
    is_message = effect.kind not in ASKED and effect.kind is not Kind.RATE_WANTED
    return list(render(effect, state)) if is_message else []
