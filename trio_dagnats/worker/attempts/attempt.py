"""One attempt: the state that its parts share, and the ways to end it from outside.

An attempt is one delivery of a task message being worked on. It has one cancel scope, whose
deadline is the end of the lease (set once the attempt is no longer young); whoever ends the attempt
gives a reason first. All attempts of a running worker share its :class:`Hub`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

import trio

from trio_dagnats.attempt.lease import lease_end, renew_at
from trio_dagnats.attempt.life import State
from trio_dagnats.attempt.loop_bounds import LoopBounds
from trio_dagnats.attempt.note import Note
from trio_dagnats.attempt.outcome import Settlement
from trio_dagnats.attempt.reasons import CancelReason
from trio_dagnats.errors import NotStored
from trio_dagnats.transport.port import FOREVER, Delivery, Posted
from trio_dagnats.wire.events import EventType, HistoryEvent
from trio_dagnats.wire.task import NO_TASK, Task
from trio_dagnats.wire.trace import from_headers
from trio_dagnats.worker.attempts.shared import Hub
from trio_dagnats.worker.deadlines import FAREWELL
from trio_dagnats.worker.engine.settle import Verdict
from trio_dagnats.worker.handlers.handler import Handler
from trio_dagnats.worker.intake.slots import Share

NO_NOTE = Note(dispatch=0)
"""Stands for the note until it is read."""


@final
@dataclass(slots=True, kw_only=True)
class Wait:
    """What an attempt is waiting for by its own wish. ``until_ns`` is a pause's end, else 0."""

    what: str
    until_ns: int = 0


@final
class Attempt:
    """The shared state of one attempt; see the module.

    A plain class with its defaults in the class: one is made for every task.

    Attributes:
        hub: what all attempts of the worker share.
        handler: what serves it.
        share: the consumer's part of the slots.
        delivery: the task message.
        dispatch: the identity of the dispatch: the message's stream sequence (design 8.1).
        ack_wait: seconds of the lease, as the durable has it.
        lease_until: trio time after which nothing may be said about the delivery.
        main_task: the handler's, while it has one.
        own_scope: its ``scope``, None until there is a task or a limit for it.
        task: the parsed task; ``NO_TASK`` until it is parsed.
        verdict: what became of the outcome, once it was stored or not.
        posted: what it waits for without a task: its turn to begin (``entrance``), a look at its
            run, or an event (``express``).
        starting: its ``step.started`` while the handler runs already (``pipeline_started``).
        waiter: the handler's task that waits for an answer to one of these.
        unsure: something that was posted may be stored or not.
        known_sequence: the newest history sequence known to speak about this dispatch.
        starts: those before this one that could still be held against the task (design 8.2).
        note_written: the attempt note exists, so that the outcome has to delete it.
        waits: what the handler's own tasks are waiting for by their own wish.
        signals: revisions of signals that this attempt has returned to its handler.
        iteration: loop iterations committed before this one.
        bounds: those of an ``agent_loop``, None for any other handler.
        maps: the durable maps that were called, by name or number.
        idle: the whole attempt waits, without a slot.
        thread: the thread of a plain ``def``, while it runs.
        nak_delay: seconds for the next delayed hand-back.
        complaint: why the message is no task.
        settling: the scope or the post that bounds the storing of an outcome.
        returned: the handler is over, or was never called.
        over: the attempt has left the worker.
    """

    main_task: trio.lowlevel.Task | None = None
    own_scope: trio.CancelScope | None = None
    task: Task = NO_TASK
    state: State = State.RECEIVED
    reason: CancelReason | None = None
    outcome: Settlement | None = None
    verdict: Verdict | None = None
    posted: Posted | None = None
    starting: Posted | None = None
    waiter: trio.lowlevel.Task | None = None
    unsure: bool = False
    known_sequence: int = 0
    note: Note = NO_NOTE
    note_read: bool = False
    starts: int = 0
    note_written: bool = False
    pauses: int = 0
    signals_pending: bool = False
    checkpointed: bool = False
    iteration: int = 0
    bounds: LoopBounds | None = None
    maps: tuple[str, ...] = ()
    waits: tuple[Wait, ...] = ()
    signals: Mapping[str, int] = MappingProxyType({})
    idle: bool = False
    thread: int | None = None
    settling: trio.CancelScope | Posted | None = None
    nak_delay: float = 0.0
    complaint: str = ""
    started_at: float = 0.0
    returned: bool = False
    over: bool = False

    def __init__(
        self, hub: Hub, handler: Handler, share: Share, ack_wait: float, delivery: Delivery
    ) -> None:
        self.hub = hub
        self.handler = handler
        self.share = share
        self.delivery = delivery
        self.ack_wait = ack_wait
        self.lease_until = lease_end(delivery.sent_after, ack_wait)
        self.trace = from_headers(delivery.headers)
        self.dispatch = delivery.stream_sequence

    def __repr__(self) -> str:
        return f"<Attempt {self.label} {self.state.name.lower()}>"

    @property
    def scope(self) -> trio.CancelScope:
        """What ends its task; gets its deadline when the attempt is no longer young."""
        if self.own_scope is None:
            self.own_scope = trio.CancelScope()
        return self.own_scope

    @property
    def cancelled(self) -> bool:
        """Whether it was ended from outside, or its lease has ended."""
        if self.reason is not None:
            return True
        scope = self.own_scope
        # Most have no deadline yet: then the clock need not be read.
        return scope is not None and scope.deadline != FOREVER and scope.cancel_called

    @property
    def ended(self) -> bool:
        """Whether the message is answered, or must not be answered any more."""
        return self.state is State.ENDED

    @property
    def label(self) -> str:
        """Name the attempt for logs: run, step and attempt number."""
        if self.task is NO_TASK:
            return f"message {self.delivery.stream_sequence} of {self.delivery.subject}"
        return f"{self.task.run_id}.{self.task.step_id} attempt {self.task.number}"

    @property
    def log_fields(self) -> dict[str, object]:
        """Return the structured fields of every log line about this attempt."""
        if self.task is NO_TASK:
            return {"task_type": self.handler.task_type}
        return {
            "run_id": self.task.run_id,
            "step_id": self.task.step_id,
            "attempt": self.task.number,
            "task_type": self.handler.task_type,
        }

    @property
    def run_id(self) -> str:
        """The run of this attempt."""
        return self.task.run_id

    @property
    def published_ns(self) -> int:
        """When the task message was stored."""
        return self.delivery.published_ns

    def cancel(self, reason: CancelReason) -> None:
        """End the attempt for this reason; the first reason stands.

        An outcome that is being stored is left to finish: bounded by the lease, and by
        ``FAREWELL`` seconds when the worker drains.
        """
        if self.over or self.reason is not None:
            return
        self.reason = reason
        self.hasten()
        if self.settling is not self.scope:
            self.scope.cancel()
        if self.posted is not None and self.state in {State.RECEIVED, State.STARTING}:
            self.posted.abandon()
            self.posted = None
            self.hub.spawn(self)  # for its farewell

    def hand_back(self, reason: CancelReason, until_ns: int) -> None:
        """End the attempt, so that the task comes back at this time (wall clock, nanoseconds)."""
        self.waits += (Wait(what="hand back", until_ns=until_ns),)
        self.cancel(reason)

    def hasten(self) -> None:
        """Bound the storing of an outcome once the attempt is cancelled."""
        if self.settling is not None and self.reason is not None:
            limit = trio.current_time() + FAREWELL
            self.settling.deadline = min(self.settling.deadline, limit)

    def run_event(self, event: HistoryEvent) -> None:
        """Act on what the run's history says about this attempt."""
        if event.type == EventType.WORKFLOW_CANCELLED:
            self.cancel(CancelReason.RUN_CANCELLED)
        elif event.type in {EventType.WORKFLOW_FAILED, EventType.WORKFLOW_COMPLETED}:
            self.cancel(CancelReason.RUN_ENDED)
        elif (
            event.type == EventType.STEP_FAILED
            and not event.worker_id
            and event.step_id == self.task.step_id
            and event.attempt_number == self.task.number
        ):
            self.cancel(CancelReason.STEP_TIMEOUT)

    async def renew_lease(self) -> bool:
        """Renew the lease and move the end of the scope; False if it was not confirmed in time.

        Tried until the lease ends, because the connection may come back before.
        """
        try:
            sent_at = await self.delivery.renew(deadline=self.lease_until)
        except NotStored:
            return False
        if not self.scope.cancel_called:
            self.lease_until = lease_end(sent_at, self.ack_wait)
            self.scope.deadline = self.lease_until
        return True

    async def heartbeat(self) -> None:
        """Renew the lease at the handler's wish.

        Raises:
            NotStored: it was not confirmed while the lease lasted.
        """
        if not await self.renew_lease():
            raise NotStored(f"the lease of {self.label} was not renewed in time")

    async def keep_lease(self) -> None:
        """Renew the lease once and arm the next renewal, while the attempt lasts."""
        if not self.over and await self.renew_lease() and not self.over:
            self.hub.agenda.at(renew_at(trio.current_time(), self.ack_wait), self.keep_lease)
