"""What an engine decides, the handler feels, and what a worker holds, it hands back.

Each on the local engine, and (``live``) on the DagNats engine that ``TRIO_DAGNATS_LIVE_URL`` names.
"""

import random
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
from engine_worker import ITERATIONS

from trio_dagnats import CancelReason, Client, Retry, Run, TaskContext, Worker, Workflow
from trio_dagnats.client import RunStatus, WorkflowRun
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire import events
from trio_dagnats.wire.names import BUCKET_CHECKPOINTS, TASK_QUEUES, checkpoint_key, note_key

SCRIPT = Path(__file__).with_name("engine_worker.py")
PATIENCE = 60.0
OUTCOMES = {"step.completed", "step.failed", "step.continue"}


@dataclass
class Engine:
    """An engine, and a name on it that nobody has used: of a workflow, its only step, its task."""

    url: str
    broker: Broker
    client: Client
    name: str

    async def start(self, given: object = None, **options: object) -> Run:
        """Start a run of a workflow with one step."""
        workflow = Workflow(self.name)
        workflow.step(self.name, **options)  # type: ignore[arg-type]  # what StepOptions names
        await self.client.register(workflow)
        return await self.client.start(self.name, given)

    async def register(self, **options: object) -> None:
        """Register the workflow with one step, with options of its own."""
        workflow = Workflow(self.name, **options)  # type: ignore[arg-type]  # what it names
        workflow.step(self.name)
        await self.client.register(workflow)

    async def cancel(self, run_id: str) -> None:
        """Cancel a run as other clients do it, which do not look at its status before."""
        event = events.cancelled(run_id, self.broker.time_ns())
        deadline = trio.current_time() + PATIENCE
        await self.broker.store(event.subject, event.body, msg_id=event.msg_id, deadline=deadline)

    async def ended(self, run: Run) -> WorkflowRun:
        """Wait until a run has ended and its task message is settled."""
        found = await run.wait(PATIENCE)
        with trio.fail_after(PATIENCE):
            while await self._unsettled():
                await trio.sleep(0.02)
        return found

    async def _unsettled(self) -> int:
        deadline = trio.current_time() + PATIENCE
        durable = f"workers-{self.name}"
        found = await self.broker.consumers(TASK_QUEUES, deadline=deadline)
        return sum(s.pending + s.ack_pending for s in found if s.durable == durable)

    async def written(self, key: str) -> None:
        """Wait until there is such a key beside the run."""
        deadline = trio.current_time() + PATIENCE
        with trio.fail_after(PATIENCE):
            while await self.broker.kv_get(BUCKET_CHECKPOINTS, key, deadline=deadline) is None:
                await trio.sleep(0.02)


@pytest.fixture(params=["local", pytest.param("dagnats", marks=pytest.mark.live)])
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    """The local engine, or a DagNats engine."""
    name = f"t{uuid.uuid4().hex[:8]}"
    if request.param == "dagnats":
        url = request.getfixturevalue("live_url")
        async with open_broker(url) as broker, Client(broker) as client:
            yield Engine(url, broker, client, name)
        return
    async with (
        Server() as server,
        LocalEngine(server.url),
        open_broker(server.url) as broker,
        Client(broker) as client,
    ):
        yield Engine(server.url, broker, client, name)


async def seen(run: Run, event_type: str, times: int = 1) -> None:
    """Wait until the history has so many events of a type."""
    with trio.fail_after(PATIENCE):
        async for event in run.events():
            times -= event.type == event_type
            if not times:
                return
    raise AssertionError(f"the run has ended before {event_type}")


async def events_of(run: Run) -> Counter[str]:
    """Count the run's events by type."""
    return Counter(event.type for event in await run.history())


@contextmanager
def worker_process(engine: Engine, kind: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker for the length of a block."""
    command = [sys.executable, str(SCRIPT), engine.url, engine.name, kind]
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


async def exit_code(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process, without holding the loop."""
    with trio.fail_after(PATIENCE):
        return await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)


async def what_is_felt(
    engine: Engine, *, cancel: bool = False, timeout: float = 0
) -> tuple[list[CancelReason | None], RunStatus, Counter[str]]:
    """Let a handler wait for ever; return what it felt, how its run ended, and its events."""
    worker, felt = Worker(engine.url), list[CancelReason | None]()

    @worker.handle(engine.name)
    async def handler(ctx: TaskContext) -> None:
        try:
            await trio.sleep_forever()
        finally:
            felt.append(ctx.cancel_reason)

    async with worker:
        run = await engine.start(timeout=timeout)
        await seen(run, "step.started")
        if cancel:
            await run.cancel()
        ended = await engine.ended(run)
    return felt, ended.status, await events_of(run)


async def test_cancelling_a_run_ends_its_running_handler(engine: Engine) -> None:
    felt, status, found = await what_is_felt(engine, cancel=True)

    assert (felt, status) == ([CancelReason.RUN_CANCELLED], RunStatus.CANCELLED)
    assert not OUTCOMES & set(found)


async def test_a_step_timeout_ends_the_running_handler(engine: Engine) -> None:
    felt, status, found = await what_is_felt(engine, timeout=1)

    assert (felt, status) == ([CancelReason.STEP_TIMEOUT], RunStatus.FAILED)
    assert {kind: found[kind] for kind in OUTCOMES & set(found)} == {"step.failed": 1}


@pytest.mark.parametrize("timeout", [0, 30], ids=["without a step timeout", "within one"])
async def test_a_pause_returns_keeps_the_checkpoint_and_costs_no_attempt(
    engine: Engine, timeout: float
) -> None:
    worker = Worker(engine.url)

    @worker.handle(engine.name)
    async def handler(ctx: TaskContext) -> bytes | None:
        await ctx.pause(1, {"at": 1})
        return await ctx.load_checkpoint()

    async with worker:
        run = await engine.start(timeout=timeout)
        ended = await engine.ended(run)

    assert (ended.status, ended.steps[engine.name].attempts) == (RunStatus.COMPLETED, 1)
    assert ended.steps[engine.name].value() == {"at": 1}
    assert (await events_of(run))["step.started"] == 1


async def test_a_pause_that_does_not_fit_the_step_timeout_is_refused_and_names_both(
    engine: Engine,
) -> None:
    worker = Worker(engine.url)

    @worker.handle(engine.name)
    async def handler(ctx: TaskContext) -> None:
        await ctx.pause(60)

    async with worker:
        run = await engine.start(timeout=5)
        _, error = (await engine.ended(run)).failed_step()

    assert "a pause of 60 s" in error
    assert "does not fit the timeout of 5 s" in error


async def test_a_pause_goes_on_with_the_next_worker_and_spends_no_retry(engine: Engine) -> None:
    """There is one retry: had the drain spent it, the handler's own failure would be final."""
    tries: list[tuple[int, int]] = []

    async def handler(ctx: TaskContext) -> str:
        tries.append((ctx.attempt, ctx.deliveries))
        await ctx.pause(2, "paused")
        if ctx.attempt == 1:
            raise ValueError("the handler's own failure")
        return "rested"

    first, second = Worker(engine.url, grace=0), Worker(engine.url)
    first.handle(engine.name, handler)
    second.handle(engine.name, handler)
    async with first:
        run = await engine.start(retry=Retry(1, delay=0.1))
        await engine.written(note_key(run.id, engine.name))
    async with second:
        ended = await engine.ended(run)

    assert ended.status is RunStatus.COMPLETED
    assert tries == [(1, 1), (1, 2), (2, 1)]


async def test_signals_from_before_and_during_the_wait_arrive_once_each(engine: Engine) -> None:
    worker = Worker(engine.url)
    may_wait = trio.Event()

    @worker.handle(engine.name)
    async def handler(ctx: TaskContext) -> str:
        await may_wait.wait()
        early = await ctx.wait_for_signal("early")
        await ctx.checkpoint("waits for the late one")
        late = await ctx.wait_for_signal("late")
        with pytest.raises(trio.TooSlowError):
            await ctx.wait_for_signal("late", timeout=0.2)  # it was returned already
        return f"{early.decode()} {late.decode()}"

    async with worker:
        run = await engine.start()
        await seen(run, "step.started")
        await run.signal("early", 1)
        may_wait.set()
        await engine.written(
            note_key(run.id, engine.name)
        )  # the note that the first one is consumed
        await run.signal("late", 2)
        ended = await engine.ended(run)

    assert ended.steps[engine.name].value() == "1 2"


async def test_a_loop_whose_workers_are_killed_runs_each_iteration_once(engine: Engine) -> None:
    workflow = Workflow(engine.name)
    workflow.agent_loop(engine.name, max_iterations=ITERATIONS + 1)
    await engine.client.register(workflow)
    run = await engine.client.start(engine.name, [])
    for until in (3, 7):
        with worker_process(engine, "loop") as process:
            await seen(run, "step.continue", until)
            process.kill()
            assert await exit_code(process) == -signal.SIGKILL
    with worker_process(engine, "loop"):
        ended = await engine.ended(run)

    step = ended.steps[engine.name]
    assert (ended.status, step.value()) == (RunStatus.COMPLETED, list(range(ITERATIONS)))
    assert (step.iterations, step.attempts) == (ITERATIONS, 1)
    assert (await events_of(run))["step.continue"] == ITERATIONS


async def test_a_drained_worker_hands_over_to_another_one_and_spends_no_retry(
    engine: Engine,
) -> None:
    """There is one retry, and the second worker's handler needs it."""
    second = Worker(engine.url)
    tries: list[tuple[int, bytes | None]] = []

    @second.handle(engine.name)
    async def handler(ctx: TaskContext) -> str:
        tries.append((ctx.attempt, await ctx.load_checkpoint()))
        if ctx.attempt == 1:
            raise ValueError("the handler's own failure")
        return "taken over"

    with worker_process(engine, "hour") as process:
        run = await engine.start(retry=Retry(1, delay=0.1))
        await engine.written(checkpoint_key(run.id, engine.name))
        async with second:
            process.send_signal(signal.SIGTERM)
            assert await exit_code(process) == 0
            ended = await engine.ended(run)

    assert ended.status is RunStatus.COMPLETED
    assert tries == [(1, b'"half"'), (2, b'"half"')]


class Holding:
    """A worker whose handlers hold until they are let go, and what each run's has felt."""

    def __init__(self, engine: Engine) -> None:
        self.running = set[str]()
        self.begun = trio.lowlevel.ParkingLot()
        self.felt: dict[str, CancelReason | None] = {}
        self.let_go = trio.Event()
        self.worker = Worker(engine.url, concurrency=200)
        self.worker.handle(engine.name, self.hold)

    async def hold(self, ctx: TaskContext) -> None:
        self.running.add(ctx.run_id)
        self.begun.unpark_all()
        try:
            await self.let_go.wait()
        finally:
            self.running.discard(ctx.run_id)
            self.felt[ctx.run_id] = ctx.cancel_reason

    async def until_running(self, run: Run) -> None:
        """Wait until a run's handler has begun."""
        with trio.fail_after(PATIENCE):
            while run.id not in self.running:
                await self.begun.park()


@pytest.mark.parametrize("most", [0.0, 0.3, 1.5], ids=["at once", "soon", "at a random moment"])
async def test_no_handler_is_left_running_of_runs_that_are_cancelled_so_soon(
    engine: Engine, most: float
) -> None:
    """The engine takes ``workflow.cancelled`` after it has dispatched; the task comes later."""
    holding, rng, count = Holding(engine), random.Random(most), 50
    await engine.register()
    async with holding.worker, trio.open_nursery() as nursery:

        async def start_and_cancel() -> None:
            run = await engine.client.start(engine.name)
            await trio.sleep(rng.uniform(0, most))
            await run.cancel()
            ended = await engine.ended(run)  # its message is settled: the handler is over
            assert ended.status is RunStatus.CANCELLED
            assert not OUTCOMES & set(await events_of(run))

        for _ in range(count):
            nursery.start_soon(start_and_cancel)

    assert set(holding.felt.values()) <= {CancelReason.RUN_CANCELLED}


async def test_a_run_that_was_cancelled_while_it_waited_for_its_turn_loses_no_outcome(
    engine: Engine, request: pytest.FixtureRequest
) -> None:
    """The DagNats engine ignores such a cancellation; the local one cancels the run."""
    ignores = "dagnats" in request.node.callspec.id
    holding = Holding(engine)
    await engine.register(max_runs=1)
    async with holding.worker:
        first = await engine.client.start(engine.name)
        await holding.until_running(first)
        second = await engine.client.start(engine.name)
        with trio.fail_after(PATIENCE):
            while await second.status() is not RunStatus.PENDING:
                await trio.sleep(0.02)
        await engine.cancel(second.id)
        if ignores:
            holding.let_go.set()
            await engine.ended(first)
        ended = await engine.ended(second) if ignores else await second.wait(PATIENCE)
        holding.let_go.set()
        await engine.ended(first)

    if ignores:
        assert ended.status is RunStatus.COMPLETED
        assert holding.felt == {first.id: None, second.id: None}
    else:
        assert ended.status is RunStatus.CANCELLED
        assert holding.felt == {first.id: None}
