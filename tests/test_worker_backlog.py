"""Tasks that have waited in the queue: their runs are looked at first, many at once."""

from collections import Counter
from itertools import pairwise

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import TaskContext, Worker
from trio_dagnats.testing import Harness
from trio_dagnats.transport.port import Record
from trio_dagnats.wire.events import parse_event
from trio_dagnats.wire.names import (
    BUCKET_RUNS,
    TASK_QUEUES,
    WORKFLOW_HISTORY,
    run_key,
    task_subject,
)
from trio_dagnats.wire.text import compact

TASKS = 150
"""More than are looked at by one read."""


def soon() -> float:
    return trio.current_time() + 10


def worker_of(harness: Harness) -> Worker:
    worker = Worker(harness.broker, grace=0)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        pass

    return worker


async def queue(harness: Harness, number: int, status: str = "", iteration: int = 0) -> None:
    run_id = f"r{number}"
    if status:
        value = compact({"run_id": run_id, "status": status})
        await harness.broker.kv_put(BUCKET_RUNS, run_key(run_id), value, deadline=soon())
    body: dict[str, object] = {"task_id": f"{run_id}.s", "run_id": run_id, "step_id": "s"}
    if iteration:
        body["iteration"] = iteration
    await harness.broker.store(task_subject("t", run_id), compact(body), deadline=soon())


async def emptied(harness: Harness) -> None:
    """Wait until no task is left."""
    while any(
        c.pending + c.ack_pending
        for c in await harness.broker.consumers(TASK_QUEUES, deadline=soon())
    ):
        await trio.sleep(0.1)


async def history(harness: Harness) -> list[Record]:
    return await harness.broker.records(WORKFLOW_HISTORY, "history.>", deadline=soon())


async def completed(harness: Harness) -> Counter[str]:
    """Count the completions of every run."""
    events = [parse_event(record.body) for record in await history(harness)]
    return Counter(event.run_id for event in events if event.type == "step.completed")


async def test_tasks_of_cancelled_runs_are_skipped_without_an_event(
    autojump_clock: MockClock, harness: Harness
) -> None:
    for number in range(TASKS):
        await queue(harness, number, "cancelled" if number % 3 == 0 else "running")
    await trio.sleep(10)

    async with worker_of(harness):
        await emptied(harness)

    alive = {f"r{number}" for number in range(TASKS) if number % 3}
    assert await completed(harness) == dict.fromkeys(alive, 1)
    assert {parse_event(record.body).run_id for record in await history(harness)} == alive


@pytest.mark.parametrize(
    ("status", "iteration", "runs"),
    [("completed", 0, 1), ("completed", 2, 0), ("failed", 2, 0), ("running", 2, 1)],
)
async def test_an_iteration_of_an_ended_run_is_skipped(
    status: str, iteration: int, runs: int, autojump_clock: MockClock, harness: Harness
) -> None:
    await queue(harness, 1, status, iteration)
    await trio.sleep(10)

    async with worker_of(harness):
        await emptied(harness)

    assert await completed(harness) == Counter(r1=runs)


@pytest.mark.parametrize("bucket", ["empty", "absent"])
async def test_runs_that_nobody_knows_are_taken_for_alive(
    bucket: str, autojump_clock: MockClock, harness: Harness
) -> None:
    if bucket == "absent":
        del harness.server.streams[f"KV_{BUCKET_RUNS}"]
    for number in range(TASKS):
        await queue(harness, number)
    await trio.sleep(10)

    async with worker_of(harness):
        await emptied(harness)

    assert await completed(harness) == {f"r{number}": 1 for number in range(TASKS)}


@pytest.mark.parametrize("turns", range(12))
async def test_a_drain_while_runs_are_looked_at_hands_everything_back(
    turns: int, autojump_clock: MockClock, harness: Harness
) -> None:
    for number in range(TASKS):
        await queue(harness, number)
    await trio.sleep(10)

    async with worker_of(harness) as worker:
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        worker.stop()
    async with worker_of(harness):
        await emptied(harness)

    assert await completed(harness) == {f"r{number}": 1 for number in range(TASKS)}


async def test_tasks_start_in_the_order_of_the_queue(
    autojump_clock: MockClock, harness: Harness
) -> None:
    for number in range(TASKS):
        await queue(harness, number)
    await trio.sleep(10)

    async with worker_of(harness):
        await emptied(harness)

    events = [parse_event(record.body) for record in await history(harness)]
    starts = [int(event.run_id[1:]) for event in events if event.type == "step.started"]
    assert all(one < next_ for one, next_ in pairwise(starts))
