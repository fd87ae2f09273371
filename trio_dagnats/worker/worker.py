"""The worker that users make: handlers are registered on it, then it serves them.

::

    start, or the block
    ├─ interrupts              the signals of the process; start only
    └─ the run
       ├─ overrun.exit_at_last    with hard_exit: outlives the connection
       └─ connection
          └─ serve(Service)       drains while the connection lives

``stop`` and signals reach a worker in any moment of its life:

| it is | ``stop`` |
|---|---|
| connecting | cancels that; ``start`` returns as after a drain |
| serving, or about to | drains within the grace |
| draining | changes nothing, for the grace is counted from the first call |
| over, or not started | does nothing |

Nothing here knows an attempt: what a worker does is in ``service``, made anew for each run.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from dataclasses import replace
from secrets import token_hex
from types import TracebackType
from typing import Self, TypeVar, Unpack, final, overload

import trio

from trio_dagnats.errors import UsageError, unwrap_group, without_groups
from trio_dagnats.logs import Log
from trio_dagnats.transport import ConnectOptions, NatsSource, open_broker
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.names import check_worker_id
from trio_dagnats.worker.directory import describe
from trio_dagnats.worker.drain.interrupts import Interrupts
from trio_dagnats.worker.drain.ledger import LedgerLine
from trio_dagnats.worker.handlers import adapters
from trio_dagnats.worker.handlers.handler import Registry
from trio_dagnats.worker.handlers.register import (
    Adapt,
    HandleOptions,
    register,
)
from trio_dagnats.worker.service import Service, serve
from trio_dagnats.worker.settings import Settings
from trio_dagnats.worker.telemetry import NoTelemetry, Telemetry

log = Log("trio_dagnats.worker")

F = TypeVar("F", bound=Callable[..., object])


@final
class Worker:
    """Pulls tasks of the registered types, runs their handlers, reports their outcomes.

    Use it as ``trio.run(worker.start)``, as ``await nursery.start(worker.start)``, or as
    ``async with worker:`` for the length of a block. It may be started again after it has ended.

    Args:
        nats: the server's URL, several URLs of one cluster, a nats-py client that is connected in
            the running trio-asyncio loop (used as it is, never closed), or a broker. On Python
            3.14 such a program takes ``trio_asyncio`` from ``trio_dagnats.transport``.
        telemetry: where spans and counters go; silent when None.
        concurrency: attempts that may run at once, over all handlers.
        grace: seconds that a drain leaves running handlers; 25 fits Kubernetes' 30.
        worker_id: the name in the directory, a random one when None.
        options: how to connect: credentials, TLS, names.
        hard_exit: end the process with exit code 70 if it outlives the grace by 1.75 seconds.
        pipeline_started: start the handler before the server has stored ``step.started``; its
            outcome waits for that. It saves a round trip, and risks that a handler has run of
            which the engine knows nothing: without the event it is ended (``NOT_STARTED``).

    Raises:
        UsageError: a value that cannot be used; the text names it.
    """

    def __init__(  # noqa: PLR0913 - each has its default
        self,
        nats: NatsSource,
        telemetry: Telemetry | None = None,
        *,
        concurrency: int = 100,
        grace: float = 25.0,
        worker_id: str | None = None,
        options: ConnectOptions | None = None,
        hard_exit: bool = False,
        pipeline_started: bool = False,
    ) -> None:
        self._nats, self._options = nats, options
        self._telemetry = telemetry or NoTelemetry()
        self._settings = Settings(
            concurrency=concurrency, grace=grace, hard_exit=hard_exit, pipelined=pipeline_started
        )
        self._registry = Registry()
        self._service: Service | None = None
        self._startup = trio.CancelScope()
        self._running = False
        self._block = AsyncExitStack()
        random_id = f"worker-{token_hex(8)}"
        self.worker_id = check_worker_id(random_id if worker_id is None else worker_id)

    def __repr__(self) -> str:
        state = "running" if self._running else "idle"
        return f"<Worker {self.worker_id} {state} serving {len(self._registry)} task types>"

    @property
    def ledger(self) -> tuple[LedgerLine, ...]:
        """What became of the attempts in flight when the last drain began; empty before one."""
        return self._service.ledger if self._service else ()

    @property
    def grace(self) -> float:
        """Seconds that a drain leaves running handlers."""
        return self._settings.grace

    @overload
    def handle(
        self, task_type: str, handler: None = None, **options: Unpack[HandleOptions]
    ) -> Callable[[F], F]: ...
    @overload
    def handle(self, task_type: str, handler: F, **options: Unpack[HandleOptions]) -> F: ...
    def handle(
        self, task_type: str, handler: F | None = None, **options: Unpack[HandleOptions]
    ) -> F | Callable[[F], F]:
        """Register ``handler(ctx)``, where ``ctx.input`` is raw JSON. A call or a decorator.

        The return value completes the step, unless the handler declared an outcome by a call.
        A plain ``def`` runs in a trio thread.

        Args:
            task_type: the task name of workflow steps.
            handler: the function; None to decorate it.
            options: see :class:`HandleOptions`.

        Raises:
            UsageError: a name, value or signature that cannot be served, or a second handler.
        """
        return self._register(adapters.raw, task_type, handler, options)

    @overload
    def handle_typed(
        self, task_type: str, handler: None = None, **options: Unpack[HandleOptions]
    ) -> Callable[[F], F]: ...
    @overload
    def handle_typed(self, task_type: str, handler: F, **options: Unpack[HandleOptions]) -> F: ...
    def handle_typed(
        self, task_type: str, handler: F | None = None, **options: Unpack[HandleOptions]
    ) -> F | Callable[[F], F]:
        """Register ``handler(ctx, input: In) -> Out``; both types come from the annotations.

        Input that does not validate fails the step for good, with a text that names the field.

        Args and errors: as :meth:`handle`.
        """
        return self._register(adapters.typed, task_type, handler, options)

    @overload
    def agent_loop(
        self, task_type: str, handler: None = None, **options: Unpack[HandleOptions]
    ) -> Callable[[F], F]: ...
    @overload
    def agent_loop(self, task_type: str, handler: F, **options: Unpack[HandleOptions]) -> F: ...
    def agent_loop(
        self, task_type: str, handler: F | None = None, **options: Unpack[HandleOptions]
    ) -> F | Callable[[F], F]:
        """Register ``handler(ctx, state: S) -> Continue[S] | Out``, called once per iteration.

        The first iteration's state is the step's input, read as ``S``; later ones get what the
        iteration before returned in ``Continue(state)``. Each state is committed once. Args and
        errors: as :meth:`handle`.
        """
        return self._register(adapters.agent_loop, task_type, handler, options)

    async def start(
        self,
        *,
        handle_signals: bool = True,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until shutdown, then drain: ``trio.run(worker.start)``.

        Ready (``task_status``) when the first task can arrive. SIGINT and SIGTERM drain within
        ``grace``; a second one takes the grace away and the process then ends with 128 + signal.

        Cancellation: a drain without grace; running handlers are cancelled and handed back.

        Args:
            handle_signals: receive SIGINT and SIGTERM; False beside a program that does.
            task_status: for ``nursery.start``.

        Raises:
            ConnectError: no usable server in time, or the connection ended for good.
            Missing: the server, or the account on it, has no JetStream.
            EngineError: the server has no DagNats streams.
            UsageError: nothing is registered, or another consumer stands in the way.
            SystemExit: after a second signal.
        """
        interrupts = Interrupts(self._interrupted)
        # Opened before a signal can come, which would else be lost.
        with without_groups(), self._opened():
            async with trio.open_nursery() as nursery:
                if handle_signals:
                    await nursery.start(interrupts.run)
                await self._run(task_status)
                nursery.cancel_scope.cancel()
        interrupts.leave()

    def move_to(self, nats: NatsSource) -> None:
        """Serve another server than the one it was made with, from its next start on.

        Raises:
            UsageError: it is running.
        """
        if self._running:
            raise UsageError("this worker is running; move it before it is started")
        self._nats = nats

    def connect(self) -> AbstractAsyncContextManager[Broker]:
        """Connect for a block to the server that it serves; errors: as :meth:`start`."""
        return open_broker(self._nats, self._options)

    def own_process(self) -> None:
        """Turn ``hard_exit`` on: the process is for this worker alone."""
        self._settings = replace(self._settings, hard_exit=True)

    def stop(self) -> None:
        """Begin a drain; idempotent, never waits.

        May be called from a handler, from one that runs in a trio thread, too.
        """
        if not trio.lowlevel.in_trio_run():
            trio.from_thread.run_sync(self.stop)
            return
        if self._service is None:
            self._startup.cancel()
        else:
            self._service.drain(self._settings.grace)

    async def __aenter__(self) -> Self:
        """Serve in the background for the length of the block, without touching signals."""
        self._block.enter_context(self._opened())
        nursery = await self._block.enter_async_context(trio.open_nursery())
        try:
            await nursery.start(self._run)
        except BaseException as error:
            await self._leave(error)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drain: within ``grace`` at the end of the block, without grace after an error."""
        if self._service is not None:
            self._service.drain(self._settings.grace if error is None else 0.0)
        await self._leave(error, own=error)

    async def _leave(self, error: BaseException | None, own: BaseException | None = None) -> None:
        """Leave the block's stack; what comes out of its nursery comes alone, not in a group.

        An error of the block itself (``own``) leaves as it was raised, by ``__aexit__``'s answer.
        """
        kind = type(error) if error is not None else None
        trace = error.__traceback__ if error is not None else None
        try:
            await self._block.__aexit__(kind, error, trace)
        except BaseExceptionGroup as group:
            found = unwrap_group(group, own)
            if found is not own:
                raise found from found.__cause__

    def _register(
        self, adapt: Adapt, task_type: str, handler: F | None, options: HandleOptions
    ) -> F | Callable[[F], F]:
        if self._running:
            raise UsageError(
                f"task type {task_type!r} was registered while the worker runs; register every "
                "handler before starting it"
            )
        return register(self._registry, adapt, task_type, handler, options)

    def _interrupted(self, again: bool) -> None:  # noqa: FBT001 - the one fact there is
        """Drain upon a signal of the process; take the grace away upon the second one."""
        if again:
            log.warning("second signal: no more grace")
            if self._service is not None:
                self._service.drain(0.0)
        else:
            log.info("signal received")
            self.stop()

    @contextmanager
    def _opened(self) -> Iterator[None]:
        """Count as running for a block: one run at a time, and no handler is added meanwhile.

        Raises:
            UsageError: it runs already, or serves nothing.
        """
        if not len(self._registry):
            raise UsageError("this worker serves nothing; register a handler before starting it")
        if self._running:
            raise UsageError("this worker is running already; make another one")
        self._running, self._service, self._startup = True, None, trio.CancelScope()
        try:
            yield
        finally:
            self._running = False

    async def _run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connect, serve until drained, close; ready once the first task can arrive.

        Whoever waits for the readiness gets it even if the worker is stopped before: that it was
        stopped is no error of whoever has started it.
        """
        about = describe(self.worker_id, self._registry.task_types(), self._settings.concurrency)
        handlers = self._registry.handlers()
        with self._startup:
            async with trio.open_nursery() as nursery:
                try:
                    async with self.connect() as broker:
                        service = Service(broker, handlers, about, self._telemetry, self._settings)
                        self._service = service
                        if self._settings.hard_exit:
                            nursery.start_soon(service.overrun.exit_at_last)
                        await serve(service, task_status)
                finally:  # the connection is closed
                    if self._service is not None:
                        self._service.overrun.over()
        if self._service is None or not self._service.ready:
            task_status.started()  # stopped before it was ready: that is no error
