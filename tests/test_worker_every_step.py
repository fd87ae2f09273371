"""A worker that is cancelled at any step of its life: start, work, drain. Not some: every one.

A life is played again and again in virtual time, cancelled one step of one of its tasks later each
time, until it is whole.
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

import pytest
import trio
import trio.testing

from trio_dagnats import TaskContext, Worker
from trio_dagnats.local import Server
from trio_dagnats.local.engine import resources
from trio_dagnats.testing import MemoryBroker, MemoryServer
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import Broker, Record
from trio_dagnats.wire.events import parse_event
from trio_dagnats.wire.names import TASK_QUEUES, WORKFLOW_HISTORY
from trio_dagnats.wire.text import compact

ENDS_WITHIN = 3.0
"""Virtual seconds from the cancellation to the last thing that a worker says.

Not to the end of ``start``: a thread ends in real time, and meanwhile the virtual clock jumps.
"""
PATIENCE = 30.0
OUTCOMES = {"step.completed", "step.failed", "step.continue"}
SAMPLES = 20
"""Steps of a life on a real server that are tried."""
UNIT = 0.05
"""Seconds that a second takes there."""


class CancelAt(trio.abc.Instrument):
    """Cancels a scope at the n-th step that any task makes."""

    def __init__(self, step: int) -> None:
        self.scope = trio.CancelScope()
        self._step = step
        self.steps = 0
        self.at = float("inf")

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        if self.steps == self._step:
            self.at = trio.current_time()
            self.scope.cancel()


def make_worker(nats: Broker | str, *, over: bool = False, unit: float = 1.0) -> Worker:
    """Serve tasks of all kinds until one of them stops the worker; or, if it is over, let them end.

    ``unit`` is how many seconds a second is.
    """
    worker = Worker(nats, grace=unit)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> str:
        kind = ctx.input.decode().strip('"')
        if kind == "pauses":
            await ctx.pause(10 * unit, "paused")
        if over:
            return kind
        match kind:
            case "sleeps":
                await trio.sleep_forever()
            case "waits":
                await ctx.wait_for_signal("never")
            case "works":
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(trio.sleep, 1.5 * unit)
            case "stops":
                await trio.sleep(unit)
                worker.stop()
        return kind

    return worker


KINDS = ("sleeps", "waits", "works", "pauses", "stops")


async def put_tasks(broker: Broker, life: str = "") -> None:
    for kind in KINDS:
        run_id = f"{kind}{life}"
        body = compact({"run_id": run_id, "step_id": "s", "input": kind})
        await broker.store(f"task.t.{run_id}", body, deadline=trio.current_time() + PATIENCE)


async def by_start(worker: Worker) -> None:
    await worker.start(handle_signals=False)


async def in_a_block(worker: Worker) -> None:
    async with worker:
        await trio.sleep(1)


async def beside_another_task(worker: Worker) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(worker.start, handle_signals=False))
        await trio.sleep(1)
        worker.stop()


Serve = Callable[[Worker], Awaitable[None]]


@dataclass
class Life:
    """One life on the in-memory server, cancelled at a step; what did not hold is in ``wrong``."""

    serve: Serve
    step: int
    steps: int = 0
    said_at: float = 0.0
    wrong: list[str] = field(default_factory=list)

    async def play(self) -> None:
        async with MemoryServer() as self.server:
            self.admin = MemoryBroker(self.server)
            await resources.ensure(self.admin, trio.current_time() + PATIENCE)
            await put_tasks(self.admin)
            before = self.what_is_there()
            async with self.admin.listen(">", self.hear):
                await self.live()
            if self.what_is_there() != before:
                self.wrong.append(f"{before} before, {self.what_is_there()} after")
            await self.check_hand_backs()

    async def live(self) -> None:
        counting = CancelAt(self.step)
        worker = make_worker(MemoryBroker(self.server))
        trio.lowlevel.add_instrument(counting)
        try:
            with counting.scope:
                await self.serve(worker)
        finally:
            trio.lowlevel.remove_instrument(counting)
        self.steps = counting.steps
        took = self.said_at - counting.at
        if took > ENDS_WITHIN:
            self.wrong.append(f"it took {took:.1f} s to end")
        if worker._service is not None and worker._service.live:
            self.wrong.append(f"left behind: {worker._service.live}")
        if await self.admin.kv_entries("workers", deadline=trio.current_time() + PATIENCE):
            self.wrong.append("it is still in the directory")

    def hear(self, _message: object) -> None:
        self.said_at = trio.current_time()

    def what_is_there(self) -> tuple[int, int]:
        """Count the tasks and the subscriptions."""
        return trio.lowlevel.current_statistics().tasks_living, len(self.server._subscriptions)

    async def check_hand_backs(self) -> None:
        """Every task that is not settled is to be had, at once or after its pause; once each."""
        for consumer in self.server.stream(TASK_QUEUES).consumers.values():
            if consumer._leases:
                self.wrong.append(f"not handed back: {list(consumer._leases)}")
        async with make_worker(MemoryBroker(self.server), over=True):
            with trio.move_on_after(PATIENCE):
                while list(self.server.stream(TASK_QUEUES).read(">", self.server.time_ns())):
                    await trio.sleep(1)
        events = self.server.stream(WORKFLOW_HISTORY).read(">", self.server.time_ns())
        found = [parse_event(record.body) for record in events]
        ended = sorted(event.run_id for event in found if event.type in OUTCOMES)
        if ended != sorted(KINDS):
            self.wrong.append(f"outcomes: {ended}")


def play(serve: Serve, step: int) -> Life:
    """Play a life cancelled at a step, 0 for one that is not; the same for the same step."""
    trio._core._run._r.seed(1)  # trio shuffles the tasks that are ready
    life = []

    async def run() -> None:
        life.append(Life(serve, step))
        await life[0].play()

    trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))
    return life[0]


@pytest.mark.parametrize("serve", [by_start, in_a_block, beside_another_task])
def test_a_worker_may_be_cancelled_at_every_step_of_its_life(serve: Serve) -> None:
    whole = play(serve, 0)
    lives = [play(serve, step) for step in range(1, whole.steps + 1)]

    assert whole.wrong == []
    assert whole.steps > 100
    assert {life.step: life.wrong for life in lives if life.wrong} == {}


async def live(url: str, step: int) -> int:
    """Live on a real server, cancelled at a step; return how many steps there were."""
    counting = CancelAt(step)
    trio.lowlevel.add_instrument(counting)
    try:
        with trio.fail_after(PATIENCE), counting.scope:
            await make_worker(url, unit=UNIT).start(handle_signals=False)
    finally:
        trio.lowlevel.remove_instrument(counting)
    return counting.steps


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    with trio.fail_after(PATIENCE):
        while not await holds():
            await trio.sleep(0.01)


async def test_a_worker_may_be_cancelled_at_any_step_of_its_life_on_a_real_server() -> None:
    """What is not handed back would be leased for five minutes, and nobody waits that long."""

    async def has_all_back() -> bool:
        found = await admin.consumers(TASK_QUEUES, deadline=trio.current_time() + PATIENCE)
        return not any(state.pending + state.ack_pending for state in found)

    async with Server() as server, open_broker(server.url) as admin:
        await resources.ensure(admin, trio.current_time() + PATIENCE)
        await put_tasks(admin, "-whole")
        steps = await live(server.url, 0)
        for sample in range(1, SAMPLES + 1):
            await put_tasks(admin, f"-{sample}")
            await live(server.url, sample * steps // SAMPLES)
            assert await admin.kv_entries("workers", deadline=trio.current_time() + PATIENCE) == []
            async with make_worker(server.url, over=True, unit=UNIT):
                await until(has_all_back)
        deadline = trio.current_time() + PATIENCE
        records = await admin.records(WORKFLOW_HISTORY, "history.>", deadline=deadline)

    ended = Counter(parse_event(r.body).run_id for r in records if is_outcome(r))
    assert ended.total() == len(ended) == len(KINDS) * (SAMPLES + 1)


def is_outcome(record: Record) -> bool:
    return parse_event(record.body).type in OUTCOMES
