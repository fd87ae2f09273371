"""One run of a worker on one connection: the nurseries, and the drain that unwinds them.

::

    helpers     directory entry, run watch, lease renewals, watchdog, micro service: the last
    │           thing cancelled
    └─ attempts    one task per delivery
       └─ intake      one pull loop per consumer: the first thing cancelled

Draining is this nesting, inside out. All of it is shielded from the caller, whose cancellation is
relayed as a drain without grace, so that hand-backs still find a living connection.

In order, and what each step waits for (the seconds are in ``deadlines``):

| | begins | waits for |
|---|---|---|
| 1 | ``_preflight``: the streams are there | the server |
| 2 | the helpers, then the tasks for attempts | nothing |
| 3 | the consumers, all of them; then their pull loops | the server |
| 4 | the directory entry; ready | the server |
| - | :meth:`Service.drain`: who is in flight is remembered, idle attempts are cancelled | nothing |
| 5 | the intake is cancelled; what still comes is handed back | the server's PONG |
| 6 | attempts end; after the grace they are cancelled | the last attempt |
| 7 | the directory entry is deleted | the server, for ``LEAVE`` seconds |
| 8 | the helpers are cancelled | what they are about |

Why in this order? Nothing new may come while the rest ends, so the intake goes first. Leases have
to be renewed, runs heard and calls at their times made until the last attempt has left, so the
helpers go last. The connection is the caller's, and outlives all of it.

What ends a worker beside a drain: a Ctrl-C that trio has raised in one of its tasks becomes a drain
(:meth:`Service.interrupt`); a fault of the worker's own unwinds the same nesting, its attempts are
cancelled (``BROKEN_OFF`` in whose task it was, ``DRAIN`` the others) and handed back.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import final

import trio

from trio_dagnats.attempt.reasons import CancelReason
from trio_dagnats.errors import EngineError
from trio_dagnats.inspection import is_interrupt
from trio_dagnats.logs import Log
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.names import BUCKET_CHECKPOINTS, TASK_QUEUES, WORKFLOW_HISTORY
from trio_dagnats.wire.registration import WorkerRegistration
from trio_dagnats.wire.task import NO_TASK
from trio_dagnats.worker.attempts.attempt import Attempt, InFlight
from trio_dagnats.worker.attempts.shared import Shared
from trio_dagnats.worker.attempts.timers import YOUNG, AgeQueue, Timers
from trio_dagnats.worker.attempts.upkeep import begin_duties, doubt_run
from trio_dagnats.worker.directory import Presence
from trio_dagnats.worker.drain.ledger import LedgerLine, line_of
from trio_dagnats.worker.drain.overrun import Overrun
from trio_dagnats.worker.engine.facts import EngineFacts
from trio_dagnats.worker.engine.run_watch import RunWatch
from trio_dagnats.worker.engine.settle import Settler
from trio_dagnats.worker.engine.signal_register import READS_AT_ONCE
from trio_dagnats.worker.engine.step_store import StepStore
from trio_dagnats.worker.execution import fast_path
from trio_dagnats.worker.execution.admission import StartQueue, admit
from trio_dagnats.worker.execution.task_pool import Interrupt, TaskPool
from trio_dagnats.worker.handlers.handler import Handler
from trio_dagnats.worker.intake.consume import Consumer
from trio_dagnats.worker.intake.durables import Durable
from trio_dagnats.worker.intake.slots import Slots
from trio_dagnats.worker.intake.source import Found, Source, find
from trio_dagnats.worker.observe.health import Health
from trio_dagnats.worker.observe.micro_service import MicroService
from trio_dagnats.worker.observe.stalled import Standstills
from trio_dagnats.worker.observe.watchdog import Watchdog
from trio_dagnats.worker.settings import Settings
from trio_dagnats.worker.telemetry import NoTelemetry, Telemetry

log = Log("trio_dagnats.worker")

PATIENCE = 10.0
"""Seconds for all questions of the preflight together."""
uninterrupted = trio.lowlevel.enable_ki_protection  # a Ctrl-C in there would end all attempts


@final
class Service:
    """Serves handlers on a connected broker until it is drained.

    For one run only: ``worker`` makes another one for the next. All that an attempt shares with
    others is made here (:meth:`_build`), and none of it is replaced while the worker runs.

    Args:
        broker: the connected server; must outlive :meth:`run`.
        handlers: what is served.
        registration: the worker's directory entry.
        telemetry: the seam for spans and counters.
        settings: how it works.

    Attributes:
        overrun: ends and names those that outlive the grace; ``worker`` gives it a task that
            outlives the connection.
        interrupted: the first Ctrl-C that trio has raised in this run, None if there was none.
        ready: the first task can arrive, or could before the drain.
    """

    def __init__(
        self,
        broker: Broker,
        handlers: Sequence[Handler],
        registration: WorkerRegistration,
        telemetry: Telemetry,
        settings: Settings,
    ) -> None:
        self._grace = trio.CancelScope()
        self.overrun = Overrun(self._grace, lambda: self.live, lambda: self.ledger)
        self._settings = settings
        self.interrupted: BaseException | None = None
        self._broker = broker
        self._handlers = handlers
        self._registration = registration
        self._telemetry = telemetry
        self._slots = Slots(settings.concurrency)
        self._threads = trio.CapacityLimiter(settings.concurrency)
        self._opening = trio.CancelScope()
        self._intake = trio.CancelScope()
        self._draining = trio.Event()
        self._attempts: InFlight | None = None
        self._watchdog = Watchdog(lambda: self.live)
        self._sources = [Durable(broker, handler.served) for handler in handlers]
        self._in_flight: list[Attempt] = []
        self.ready = False

    @property
    def live(self) -> list[Attempt]:
        """The attempts in flight."""
        return list(self._attempts.live) if self._attempts else []

    @property
    def ledger(self) -> tuple[LedgerLine, ...]:
        """One line per attempt that was in flight when the drain began."""
        return tuple(line_of(attempt) for attempt in self._in_flight)

    def health(self) -> Health:
        """Say how it is, now; costs nothing, and may be called from any thread."""
        return Health(
            ready=self.ready,
            draining=self._draining.is_set(),
            connected=self._broker.connected,
            attempts=len(self.live),
            loop_stood=self._watchdog.stood,
        )

    def interrupt(self, error: BaseException) -> None:
        """Drain upon a Ctrl-C that trio has raised; a second one takes the grace away.

        Args:
            error: the Ctrl-C; the first is kept in ``interrupted``, to be raised at the end.
        """
        log.info("interrupted")
        self.drain(0.0 if self.interrupted else self._settings.grace)
        self.interrupted = self.interrupted or error

    def drain(self, grace: float) -> None:
        """Begin to drain, or shorten a drain's grace: seconds that handlers may still run.

        Never waits, and may be called as often as one likes: a longer grace changes nothing. Before
        the worker is ready it ends the start. Attempts that only wait are handed back at once: the
        grace is for those that work, and any other worker can wait as well.
        """
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

        The shield is without a deadline, as its inside has one for each step: a drain ends by the
        seconds in ``deadlines``, but for a handler that does not end when it is cancelled.

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
                shared = self._build(helpers, notes=notes)
                watch = RunWatch(self._broker, helpers, doubt_run)
                attempts = InFlight(shared, AgeQueue(YOUNG, begin_duties), watch)
                self._attempts = attempts
                start_queue = StartQueue(fast_path.begin)
                presence = Presence(self._broker, self._registration, self._sources)
                own = (shared.timers.run, shared.slots.run, shared.facts.serve, watch.run)
                waits = (attempts.young.run, start_queue.run, self.overrun.run)
                for helper in (*own, *waits, presence.run, *self._observers()):
                    helpers.start_soon(uninterrupted(helper))
                try:
                    await self._serve(attempts, start_queue, presence, task_status)
                finally:
                    await presence.leave()
                helpers.cancel_scope.cancel()
        for line in self.ledger:
            log.info("drained: %s", line)

    async def _serve(
        self,
        attempts: InFlight,
        start_queue: StartQueue[Attempt],
        presence: Presence,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Pull until the intake is cancelled, then wait for the last attempt.

        What arrives until the last pull has ended may still begin; so the overrun sweeps once more
        after it, in case the grace is over by then.
        """
        async with _with_tasks(attempts, self.interrupt):
            with self._intake:
                async with trio.open_nursery() as intake:
                    # All of them have their share before one may pull: the first would else
                    # take the whole ledger for itself.
                    found = await find(self._sources)
                    start = partial(admit, attempts, start_queue)
                    for consumer in [
                        await self._consumer(handler, source, found, start)
                        for handler, source in zip(self._handlers, self._sources, strict=True)
                    ]:
                        await intake.start(uninterrupted(consumer.run))
                    await presence.announce()
                    self.ready = True
                    task_status.started()
            self.overrun.sweep()
            await attempts.emptied()

    def _observers(self) -> list[Callable[[], Awaitable[None]]]:
        """Make what only looks at the attempts; each gets a function that lists those in flight."""

        def live() -> list[Attempt]:
            return self.live

        endpoint = MicroService(self._broker, self._registration, live)
        return [self._watchdog.run, Standstills(live).run, endpoint.run]

    async def _consumer(
        self, handler: Handler, source: Source, found: Found, admit_for: Callable[..., None]
    ) -> Consumer:
        """Make a consumer of a handler; several of one would have the same quota."""
        state = await source.ensure(found)
        quota = self._slots.quota(handler.served.concurrency)
        start = partial(admit_for, handler.program)
        return Consumer(source, state, self._slots, quota, start)

    async def _preflight(self) -> bool:
        """Check that an engine has prepared the server; say whether notes can be kept.

        Nothing is created here that an engine has to create: what is missing is told by its name.
        """
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

    def _build(self, helpers: trio.Nursery, *, notes: bool) -> Shared:
        """Make what all attempts share.

        Calls at given times and chores are started in the helpers' nursery: it is the only one that
        outlives the attempts, and what they still have to remove from the server.
        """
        return Shared(
            broker=self._broker,
            worker_id=self._registration.worker_id,
            telemetry=self._telemetry,
            silent=isinstance(self._telemetry, NoTelemetry),
            pipelined=self._settings.pipelined,
            slots=self._slots,
            timers=Timers(helpers),
            reads=trio.CapacityLimiter(READS_AT_ONCE),
            facts=EngineFacts(self._broker),
            store=StepStore(self._broker, notes=notes),
            settler=Settler(self._broker),
            threads=self._threads,
            chores=helpers,
            draining=self._draining,
        )


@asynccontextmanager
async def _with_tasks(in_flight: InFlight, interrupt: Interrupt) -> AsyncIterator[None]:
    """Let attempts have tasks for the length of a block, which ends when they have ended.

    Whatever ends the block, no attempt gets a task any more: an answer that comes later is for an
    attempt whose nursery is gone. If an error ends it, the nursery cancels those that have one.
    """
    async with trio.open_nursery() as nursery:
        in_flight.spawn = TaskPool(nursery, in_flight.shared.slots.capacity, interrupt).run
        try:
            yield
        finally:
            in_flight.close()
        nursery.cancel_scope.cancel()  # what is left are tasks without an attempt


async def serve(
    service: Service, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Run a service until it has drained.

    The service has a task of its own: it is shielded, so somebody else has to hear the caller's
    cancellation; and trio raises a Ctrl-C that strikes no handler in its main task, which has to
    be waiting here then and not in the middle of the service.

    Cancellation: relayed as a drain without grace, so that hand-backs still find a connection.

    Raises:
        KeyboardInterrupt: after the drain, if trio has raised a Ctrl-C here or in an attempt.
    """
    over = trio.Event()

    @trio.lowlevel.enable_ki_protection
    async def run() -> None:
        try:
            await service.run(task_status)
        finally:
            over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        while not over.is_set():
            await _wait(service, over)
    if service.interrupted is not None:
        raise service.interrupted


@trio.lowlevel.enable_ki_protection
async def _wait(service: Service, over: trio.Event) -> None:
    """Wait where trio delivers a Ctrl-C that came at no better moment, if this is its main task."""
    try:
        await over.wait()
    except KeyboardInterrupt as error:
        if not is_interrupt(error):
            raise
        service.interrupt(error)
    except trio.Cancelled:
        service.drain(0.0)
        raise
