"""One run of a worker on one connection: the nurseries, and the drain that unwinds them.

::

    helpers     directory entry, run watch, lease renewals, watchdog, micro service: the last
    │           thing cancelled
    └─ attempts    one task per delivery
       └─ intake      one pull loop per consumer: the first thing cancelled

Draining is this nesting, inside out. All of it is shielded from the caller, whose cancellation is
relayed as a drain without grace, so that hand-backs still find a living connection.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import final

import trio

from trio_dagnats.errors import EngineError, UsageError
from trio_dagnats.logs import Log
from trio_dagnats.transport.port import Broker, ConsumerState, Delivery
from trio_dagnats.wire.names import BUCKET_CHECKPOINTS, TASK_QUEUES, WORKFLOW_HISTORY
from trio_dagnats.wire.registration import WorkerRegistration
from trio_dagnats.wire.task import NO_TASK
from trio_dagnats.worker import durables, express
from trio_dagnats.worker.aging import YOUNG, Agenda, Nursling
from trio_dagnats.worker.attempt import Attempt
from trio_dagnats.worker.consume import Consumer, StartAttempt
from trio_dagnats.worker.duties import begin_duties, doubt_run
from trio_dagnats.worker.engine_facts import EngineFacts
from trio_dagnats.worker.entrance import Entrance
from trio_dagnats.worker.handlers import MAX_CONCURRENCY, Handler
from trio_dagnats.worker.hub import Hub
from trio_dagnats.worker.ledger import LedgerLine, line_of
from trio_dagnats.worker.micro import MicroService
from trio_dagnats.worker.overrun import Overrun
from trio_dagnats.worker.presence import Presence
from trio_dagnats.worker.reasons import CancelReason
from trio_dagnats.worker.receive import parse
from trio_dagnats.worker.runners import Interrupt, Runners
from trio_dagnats.worker.runwatch import RunWatch
from trio_dagnats.worker.settle import Settler
from trio_dagnats.worker.signals import READS_AT_ONCE
from trio_dagnats.worker.slots import Slots
from trio_dagnats.worker.standstill import Standstills
from trio_dagnats.worker.stores import StepStore
from trio_dagnats.worker.telemetry import Guarded, NoTelemetry, Telemetry
from trio_dagnats.worker.watchdog import Watchdog

log = Log("trio_dagnats.worker")

PATIENCE = 10.0
MAX_GRACE = 86_400.0
uninterrupted = trio.lowlevel.enable_ki_protection  # a Ctrl-C in there would end all attempts


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How a worker works.

    Attributes:
        concurrency: attempts at once.
        grace: seconds that a drain leaves running handlers.
        hard_exit: end the process if it outlives the grace (``budgets``).
        pipelined: start handlers before their ``step.started`` is stored.

    Raises:
        UsageError: a number is out of its range.
    """

    concurrency: int
    grace: float
    hard_exit: bool = False
    pipelined: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 1 <= self.concurrency <= MAX_CONCURRENCY:
            raise UsageError(
                f"concurrency must be 1 to {MAX_CONCURRENCY}, not {self.concurrency!r}"
            )
        if not (isfinite(self.grace) and 0 <= self.grace <= MAX_GRACE):
            raise UsageError(f"grace must be 0 to {MAX_GRACE:g} seconds, not {self.grace!r}")


@final
class Service:
    """Serves handlers on a connected broker until it is drained.

    Args:
        broker: the connected server; must outlive :meth:`run`.
        handlers: what is served.
        registration: the worker's directory entry.
        telemetry: the seam for spans and counters.
        manner: how it works.
    """

    def __init__(
        self,
        broker: Broker,
        handlers: Sequence[Handler],
        registration: WorkerRegistration,
        telemetry: Telemetry,
        manner: Manner,
    ) -> None:
        self.overrun = Overrun(lambda: self.live, lambda: self.ledger)
        self._manner = manner
        self.interrupted: BaseException | None = None
        self._broker = broker
        self._handlers = handlers
        self._registration = registration
        self._telemetry = telemetry
        self._slots = Slots(manner.concurrency)
        self._threads = trio.CapacityLimiter(manner.concurrency)
        self._opening = trio.CancelScope()
        self._intake = trio.CancelScope()
        self._grace = trio.CancelScope()
        self._draining = trio.Event()
        self._hub: Hub | None = None
        self._in_flight: list[Attempt] = []
        self.ready = False

    @property
    def live(self) -> list[Attempt]:
        """The attempts in flight."""
        return list(self._hub.live) if self._hub else []

    @property
    def ledger(self) -> tuple[LedgerLine, ...]:
        """One line per attempt that was in flight when the drain began."""
        return tuple(line_of(attempt) for attempt in self._in_flight)

    def interrupt(self, error: BaseException) -> None:
        """Drain upon a Ctrl-C that trio has raised; a second one takes the grace away.

        Args:
            error: the Ctrl-C; the first is kept in ``interrupted``, to be raised at the end.
        """
        log.info("interrupted")
        self.drain(0.0 if self.interrupted else self._manner.grace)
        self.interrupted = self.interrupted or error

    def drain(self, grace: float) -> None:
        """Begin to drain, or shorten a drain's grace: seconds that handlers may still run."""
        limit = trio.current_time() + grace
        self._grace.deadline = min(self._grace.deadline, limit)
        self.overrun.limit(self._grace.deadline)
        if self._draining.is_set():
            return
        self._draining.set()
        self._in_flight = [attempt for attempt in self.live if attempt.task is not NO_TASK]
        log.info("draining: %d attempts in flight, %.1f s of grace", len(self._in_flight), grace)
        for attempt in self.live:
            if attempt.idle:
                attempt.cancel(CancelReason.DRAIN)
        self._opening.cancel()
        self._intake.cancel()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until drained; ready (``task_status``) when the first task can arrive.

        Cancellation: not relayed from here; call :meth:`drain`.

        Raises:
            EngineError: the server has no DagNats streams.
            UsageError: another consumer stands in the way of ours.
        """
        with trio.CancelScope(shield=True):
            notes = False
            with self._opening:
                notes = await self._preflight()
            if self._opening.cancelled_caught:  # stopped before anything was begun
                return
            async with trio.open_nursery() as helpers:
                hub = self._hub = self._build(helpers, notes=notes)
                presence = Presence(self._broker, self._registration, self._handlers)
                own = (hub.agenda, hub.young, hub.slots, hub.entrance, hub.watch)
                for helper in (*own, presence, *self._observers()):
                    helpers.start_soon(uninterrupted(helper.run))
                helpers.start_soon(uninterrupted(hub.facts.serve))
                helpers.start_soon(uninterrupted(self.overrun.run), self._grace)
                try:
                    await self._serve(hub, presence, task_status)
                finally:
                    await presence.leave()
                helpers.cancel_scope.cancel()
        for line in self.ledger:
            log.info("drained: %s", line)

    async def _serve(
        self, hub: Hub, presence: Presence, task_status: trio.TaskStatus[None]
    ) -> None:
        async with _attempts(hub, self.interrupt):
            start = partial(_start_attempt, hub)
            with self._intake:
                async with trio.open_nursery() as intake:
                    # All of them have their share before one may pull: the first would else
                    # take the whole ledger for itself.
                    found = await durables.all_found(self._broker)
                    consumers = [await self._consumer(h, found, start) for h in self._handlers]
                    for consumer in consumers:
                        await intake.start(uninterrupted(consumer.run))
                    await presence.announce()
                    self.ready = True
                    task_status.started()
            self.overrun.sweep()
            await hub.emptied()

    def _observers(self) -> tuple[Watchdog, Standstills, MicroService]:
        """Make what only looks at the attempts."""

        def live() -> list[Attempt]:
            return self.live

        return (
            Watchdog(live),
            Standstills(live),
            MicroService(self._broker, self._registration, live),
        )

    async def _consumer(
        self, handler: Handler, found: Sequence[ConsumerState], start: StartAttempt
    ) -> Consumer:
        state = await durables.ensure(self._broker, handler, found)
        return Consumer(self._broker, handler, state, self._slots, start)

    async def _preflight(self) -> bool:
        """Check that an engine has prepared the server; say whether notes can be kept."""
        deadline = trio.current_time() + PATIENCE
        for stream in (TASK_QUEUES, WORKFLOW_HISTORY):
            if not await self._broker.has_stream(stream, deadline=deadline):
                raise EngineError(
                    f"this server has no stream {stream}: no DagNats engine has prepared it; start "
                    "one (`dagnats serve`, or trio_dagnats.local.LocalEngine) and then the worker"
                )
        notes = await self._broker.has_stream(f"KV_{BUCKET_CHECKPOINTS}", deadline=deadline)
        if not notes:
            log.warning(
                "this server has no bucket %r (split engine): checkpoints and pauses will fail",
                BUCKET_CHECKPOINTS,
            )
        return notes

    def _build(self, helpers: trio.Nursery, *, notes: bool) -> Hub:
        agenda, silent = Agenda(helpers), isinstance(self._telemetry, NoTelemetry)
        return Hub(
            broker=self._broker,
            worker_id=self._registration.worker_id,
            telemetry=self._telemetry if silent else Guarded(self._telemetry),
            silent=silent,
            pipelined=self._manner.pipelined,
            slots=self._slots,
            entrance=Entrance(express.begin),
            young=Nursling(YOUNG, begin_duties),
            agenda=agenda,
            watch=RunWatch(self._broker, helpers, doubt_run),
            reads=trio.CapacityLimiter(READS_AT_ONCE),
            facts=EngineFacts(self._broker),
            store=StepStore(self._broker, notes=notes),
            settler=Settler(self._broker),
            threads=self._threads,
            chores=helpers,
            draining=self._draining,
        )


def _start_attempt(hub: Hub, consumer: Consumer, delivery: Delivery) -> None:
    twin = hub.dispatches.get(delivery.stream_sequence)
    if twin is not None and not twin.cancelled:
        # A server that was killed may not remember that it has handed this out. The answer of the
        # attempt that runs settles the message, whichever delivery it was for (contract 14).
        delivery.forget()
        hub.slots.ended(consumer.share)
        return
    attempt = Attempt(hub, consumer.handler, consumer.share, consumer.ack_wait, delivery)
    hub.join(attempt)
    try:
        parse(attempt)  # its duties need to know the run, however long it waits
        hub.entrance.enter(attempt)
    except Exception:
        if attempt.posted is not None:
            attempt.posted.abandon()
        hub.leave(attempt)  # else its slot were lost; the transport leaves the task to its lease
        raise


@asynccontextmanager
async def _attempts(hub: Hub, interrupt: Interrupt) -> AsyncIterator[None]:
    """Let attempts have tasks for the length of a block, which ends when they have ended."""
    async with trio.open_nursery() as nursery:
        hub.spawn = Runners(nursery, hub.slots.capacity, interrupt).run
        try:
            yield
        finally:
            hub.spawn = _no_task
        nursery.cancel_scope.cancel()  # what is left are tasks without an attempt


def _no_task(_attempt: Attempt) -> None:
    """Drop what an answer would have begun: the worker has ended under it, by a crash."""
