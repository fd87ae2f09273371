"""One attempt: the state that its parts share, and the ways to end it from outside.

An attempt is one delivery of a task message being worked on. It has one cancel scope, whose
deadline is the end of the lease (set once the attempt is no longer young); whoever ends the attempt
gives a reason first. All attempts of a running worker are :class:`InFlight` together.

Attributes of an attempt are written by ``attempts/`` and ``execution/`` only; others call methods.

Who ends one from outside, and with which reason (what follows is in ``attempt/reasons``):

| reason | given by |
|---|---|
| ``DRAIN`` | ``service.drain``, to those that are idle; ``Overrun``, after the grace |
| | ``Waiting``, to one that begins to wait in a drain; ``task_pool``, cancelled with its worker |
| | ``execute``, to one whose history cannot be read |
| ``RUN_CANCELLED`` | :meth:`Attempt.run_event`; ``upkeep``, by the run's snapshot |
| ``RUN_ENDED``, ``STEP_TIMEOUT`` | :meth:`Attempt.run_event` |
| ``RUN_DEADLINE`` | ``upkeep``, by its timer |
| ``LEASE_LOST`` | the scope's deadline; ``execute``, to one that stood in line for too long |
| | ``effects`` and ``farewell``, in place of a NAK that might be late |
| ``NOT_STARTED`` | ``fast_path``, with ``pipeline_started`` only |
| ``HANDED_BACK`` | ``context.waits``, at the handler's wish |
| ``BROKEN_OFF`` | ``task_pool``, to one whose own task ends the worker |

All of it happens in trio's thread. The first reason stands; only ``LEASE_LOST`` may take its place,
where nothing may be said any more.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple, final

import trio

from trio_dagnats.attempt.life import State
from trio_dagnats.attempt.outcome import Outcome, Settlement
from trio_dagnats.attempt.reasons import CancelReason, reason_of
from trio_dagnats.transport.port import FOREVER, Delivery, Pending
from trio_dagnats.wire.events import HistoryEvent
from trio_dagnats.wire.task import NO_TASK, Task
from trio_dagnats.wire.trace import from_headers
from trio_dagnats.worker.attempts.memory import Memory
from trio_dagnats.worker.attempts.shared import Shared
from trio_dagnats.worker.attempts.timers import AgeQueue
from trio_dagnats.worker.deadlines import FAREWELL
from trio_dagnats.worker.engine.run_watch import RunWatch
from trio_dagnats.worker.engine.settle import Verdict
from trio_dagnats.worker.intake.consume import Consumer
from trio_dagnats.worker.telemetry import Span, end_span


@final
class Wait(NamedTuple):
    """What an attempt is waiting for by its own wish. ``until_ns`` is a pause's end, else 0."""

    what: str
    until_ns: int = 0


@final
class Program(NamedTuple):
    """What runs for a task of one type.

    Attributes:
        task_type: the task name of workflow steps.
        call: runs the user's function for an attempt.
        outcome: says what outcome its value means.
        threaded: the user's function is synchronous and runs in a trio thread.
        loop: one call per engine iteration, with its state in the checkpoint.
    """

    task_type: str
    call: "Callable[[Attempt], Awaitable[object]]"
    outcome: Callable[[object], Outcome]
    threaded: bool
    loop: bool


@final
class InFlight:
    """The attempts of one running worker that are not over.

    Written by its own methods; ``spawn`` is set by ``service``, while attempts can have tasks. An
    attempt joins once and leaves once; in between it has a slot, or waits without one.

    Args:
        shared: what they share.
        young: attempts that may end before they are worth watching.
        watch: hears what the engine decides about the runs of the others.

    Attributes:
        live: the attempts, in the order of their arrival.
        dispatches: the same by dispatch.
        spawn: gives an attempt a task; does nothing before the worker has begun and after its end.
    """

    def __init__(
        self, shared: Shared, young: "AgeQueue[Attempt]", watch: "RunWatch[Attempt]"
    ) -> None:
        self.shared = shared
        self.young = young
        self.watch = watch
        self.live: dict[Attempt, None] = {}
        self.dispatches: dict[int, Attempt] = {}
        self.spawn: Callable[[Attempt], None] = _no_task
        self._empty = trio.lowlevel.ParkingLot()

    def join(self, attempt: "Attempt") -> None:
        """Add an attempt that has just arrived."""
        self.live[attempt] = None
        self.dispatches[attempt.dispatch] = attempt
        self.young.add(attempt, attempt.delivery.received_at)

    def leave(self, attempt: "Attempt") -> None:
        """Remove an attempt that is over, and free its slot."""
        attempt.over = True
        if attempt.span is not None:  # its outcome was never stored
            end_span(attempt.span)
        self.young.discard(attempt)
        del self.live[attempt]
        if self.dispatches.get(attempt.dispatch) is attempt:
            del self.dispatches[attempt.dispatch]
        if attempt.watched:
            self.watch.leave(attempt)
        self.shared.slots.ended(attempt.consumer.share)
        if not self.live:
            self._empty.unpark_all()

    async def emptied(self) -> None:
        """Wait until no attempt is left, with a task or without."""
        while self.live:
            await self._empty.park()

    def close(self) -> None:
        """Give no attempt a task any more: the worker has ended."""
        self.spawn = _no_task


def _no_task(_attempt: "Attempt") -> None:
    """Drop what an answer would have begun: the worker has ended under it, by a crash."""


@final
class Attempt:
    """The shared state of one attempt; see the module.

    A plain class with its defaults in the class: one is made for every task.

    Attributes:
        in_flight: the attempts that it is one of.
        shared: what all of them share.
        program: what runs for it.
        consumer: what has pulled it.
        delivery: the task message.
        dispatch: the identity of the dispatch: the message's stream sequence.
        ack_wait: seconds of the lease, as the durable has it.
        lease_until: trio time after which nothing may be said about the delivery.
        main_task: the handler's, while it has one.
        own_scope: its ``scope``, None until there is a task or a limit for it.
        own_memory: its ``memory``, None until something has to be remembered.
        task: the parsed task; ``NO_TASK`` until it is parsed.
        verdict: what became of the outcome, once it was stored or not.
        pending: what it waits for without a task: its turn to begin (``admission``), a look at its
            run, or an event (``fast_path``).
        starting: its ``step.started`` while the handler runs already (``pipeline_started``).
        waiter: the handler's task that waits for an answer to one of these.
        unsure: something that was posted may be stored or not.
        known_sequence: the newest history sequence known to speak about this dispatch.
        leftovers: remove what it has left on the server, once nobody will read that any more.
        waits: what the handler's own tasks are waiting for by their own wish.
        iteration: loop iterations committed before this one.
        idle: the whole attempt waits, without a slot.
        thread: the thread of a plain ``def``, while it runs.
        nak_delay: seconds for the next delayed hand-back.
        complaint: why the message is no task.
        span: that in which its outcome is stored, once that was begun by a post.
        settling: the scope or the post that bounds the storing of an outcome.
        watched: its run is listened to for it, as it lives for a while.
        returned: the handler is over, or was never called.
        over: the attempt has left the worker.
    """

    main_task: trio.lowlevel.Task | None = None
    own_scope: trio.CancelScope | None = None
    own_memory: Memory | None = None
    task: Task = NO_TASK
    state: State = State.RECEIVED
    reason: CancelReason | None = None
    outcome: Settlement | None = None
    verdict: Verdict | None = None
    pending: Pending | None = None
    starting: Pending | None = None
    waiter: trio.lowlevel.Task | None = None
    unsure: bool = False
    known_sequence: int = 0
    leftovers: "tuple[Callable[[Attempt], Awaitable[None]], ...]" = ()
    waits: tuple[Wait, ...] = ()
    iteration: int = 0
    idle: bool = False
    thread: int | None = None
    span: Span | None = None
    settling: trio.CancelScope | Pending | None = None
    nak_delay: float = 0.0
    complaint: str = ""
    started_at: float = 0.0
    watched: bool = False
    returned: bool = False
    over: bool = False

    def __init__(
        self, in_flight: InFlight, program: Program, consumer: Consumer, delivery: Delivery
    ) -> None:
        self.in_flight = in_flight
        self.shared = in_flight.shared
        self.program = program
        self.consumer = consumer
        self.delivery = delivery
        self.ack_wait = consumer.ack_wait
        self.lease_until = delivery.sent_after + consumer.lease
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
    def memory(self) -> Memory:
        """What it remembers beyond itself; the task has been parsed."""
        if self.own_memory is None:
            self.own_memory = Memory(self.shared.store, self.task, self.dispatch)
        return self.own_memory

    @property
    def checkpointed(self) -> bool:
        """Whether it has stored a checkpoint."""
        return self.own_memory is not None and self.own_memory.checkpointed

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
            return {"task_type": self.program.task_type}
        return {
            "run_id": self.task.run_id,
            "step_id": self.task.step_id,
            "attempt": self.task.number,
            "task_type": self.program.task_type,
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
        if self.pending is not None and self.state in {State.RECEIVED, State.STARTING}:
            self.pending.abandon()
            self.pending = None
            self.in_flight.spawn(self)  # for its farewell

    def hand_back(self, reason: CancelReason, until_ns: int) -> None:
        """End the attempt, so that the task comes back at this time (wall clock, nanoseconds)."""
        self.waits += (Wait(what="hand back", until_ns=until_ns),)
        self.cancel(reason)

    def leave_behind(self, remove: "Callable[[Attempt], Awaitable[None]]") -> None:
        """Have something removed from the server once the attempt's message is done with.

        Args:
            remove: called with the attempt, off its path; has to log what it cannot remove.
        """
        self.leftovers += (remove,)

    def resume_iteration(self, iteration: int) -> None:
        """Go on with a loop of which so many iterations are committed."""
        self.iteration = iteration

    def hasten(self) -> None:
        """Bound the storing of an outcome once the attempt is cancelled."""
        if self.settling is not None and self.reason is not None:
            limit = trio.current_time() + FAREWELL
            self.settling.deadline = min(self.settling.deadline, limit)

    def run_event(self, event: HistoryEvent) -> None:
        """Act on what the run's history says about this attempt."""
        reason = reason_of(event, self.task)
        if reason is not None:
            self.cancel(reason)
