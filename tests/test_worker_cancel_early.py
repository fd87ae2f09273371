"""Runs that are cancelled before their task was dispatched: the engine comes to that only later.

The history then has ``workflow.cancelled`` from before the task. It may also be without effect, for
the engine ignores a cancellation of a run that waits for its turn. In virtual time, with a server
that has what an engine would have stored.
"""

from collections import Counter

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import CancelReason, TaskContext, Worker
from trio_dagnats.testing import Harness
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire import events
from trio_dagnats.wire.events import EventType, parse_event
from trio_dagnats.wire.text import compact

HOUR = 3600.0


def soon() -> float:
    return trio.current_time() + 10


async def cancel(broker: Broker, run_id: str = "r") -> None:
    event = events.cancelled(run_id, broker.time_ns())
    await broker.store(event.subject, event.body, msg_id=event.msg_id, deadline=soon())


async def dispatch(broker: Broker, step_id: str = "s", run_id: str = "r") -> None:
    task = compact({"run_id": run_id, "step_id": step_id})
    await broker.store(f"task.t.{run_id}", task, deadline=soon())


async def set_status(broker: Broker, status: str) -> None:
    run = compact({"run_id": "r", "status": status})
    await broker.kv_put("workflow_runs", "run.r", run, deadline=soon())


def published(harness: Harness, run_id: str = "r") -> Counter[str]:
    """Count what the worker has published."""
    stream = harness.server.stream("WORKFLOW_HISTORY")
    records = stream.read(f"history.{run_id}", harness.broker.time_ns())
    found = [parse_event(record.body) for record in records]
    return Counter(event.type for event in found if event.worker_id)


class Holding:
    """A worker whose handlers run for an hour, and how they were ended."""

    def __init__(self, harness: Harness) -> None:
        self.broker = harness.broker
        self.ended: dict[str, CancelReason | None] = {}
        self.took = 0.0
        self.begun = trio.Event()
        self.worker = Worker(harness.broker, grace=0)
        self.worker.handle("t", self.hold, ack_wait=30)

    async def hold(self, ctx: TaskContext) -> None:
        self.begun.set()
        began = trio.current_time()
        try:
            await trio.sleep(HOUR)
        finally:
            self.took = trio.current_time() - began
            self.ended[ctx.step_id] = ctx.cancel_reason


@pytest.mark.parametrize("behind", [0.0, 0.2, 3.0, 40.0, 600.0])
@pytest.mark.parametrize("before", [0.001, 20.0, 300.0])
async def test_a_run_that_was_cancelled_before_its_dispatch_is_stopped_once_the_engine_says_so(
    autojump_clock: MockClock, harness: Harness, behind: float, before: float
) -> None:
    """``behind``: seconds from the start of the handler until the engine comes to the event."""
    holding = Holding(harness)
    await set_status(harness.broker, "running")
    await cancel(harness.broker)
    await trio.sleep(before)  # an engine that is far behind dispatches late, too

    async with holding.worker:
        await dispatch(harness.broker)
        await holding.begun.wait()
        await trio.sleep(behind)
        await set_status(harness.broker, "cancelled")
        while not holding.ended:
            await trio.sleep(0.05)
        await trio.sleep(1)

    assert holding.ended == {"s": CancelReason.RUN_CANCELLED}
    # A cancellation that the history does not show is noticed by the looks at the run alone.
    assert holding.took <= (1.25 * behind + 0.5 if before < 30 else 2 * behind + 1.5)
    assert published(harness) == {"step.started": 1}
    assert [answer.body for answer in harness.server.answers][-1] == "+ACK"


@pytest.mark.parametrize("before", [0.001, 20.0, 300.0])
async def test_a_cancellation_without_effect_withholds_no_outcome(
    autojump_clock: MockClock, harness: Harness, before: float
) -> None:
    """A run that waited for its turn is not cancelled; it is dispatched later and completes."""
    holding = Holding(harness)
    await cancel(harness.broker)
    await trio.sleep(before)
    await set_status(harness.broker, "running")

    async with holding.worker:
        await dispatch(harness.broker)
        while not holding.ended:
            await trio.sleep(10)
        await trio.sleep(1)

    assert holding.ended == {"s": None}
    assert holding.took == pytest.approx(HOUR)
    assert published(harness) == {"step.started": 1, "step.completed": 1}


async def test_a_redelivery_of_such_a_run_completes_too(
    autojump_clock: MockClock, harness: Harness
) -> None:
    await set_status(harness.broker, "running")
    await cancel(harness.broker)
    await dispatch(harness.broker)
    first, second = Holding(harness), Holding(harness)

    async with first.worker:
        await first.begun.wait()
        await trio.sleep(5)
    async with second.worker:
        while not second.ended:
            await trio.sleep(10)
        await trio.sleep(1)

    assert first.ended["s"] is CancelReason.DRAIN
    assert second.ended == {"s": None}
    assert published(harness)["step.completed"] == 1


async def test_a_run_without_a_snapshot_runs_on(
    autojump_clock: MockClock, harness: Harness
) -> None:
    """A split server keeps no runs, or another engine has removed it: nothing is decided."""
    holding = Holding(harness)
    await cancel(harness.broker)

    async with holding.worker:
        await dispatch(harness.broker)
        while not holding.ended:
            await trio.sleep(10)
        await trio.sleep(1)

    assert holding.ended == {"s": None}


async def test_the_items_of_a_map_do_not_read_the_history_again(
    autojump_clock: MockClock, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One read when the first of them is watched, none for those that come after it."""
    reads = 0
    records = harness.broker.records

    async def counted(*args: object, **options: object) -> object:
        nonlocal reads
        reads += 1
        return await records(*args, **options)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(harness.broker, "records", counted)
    worker = Worker(harness.broker, concurrency=10)
    done = 0

    @worker.handle("t")
    async def works(ctx: TaskContext) -> None:
        nonlocal done
        await trio.sleep(0.3 + done % 7 / 20)
        done += 1

    await set_status(harness.broker, "running")
    async with worker:
        for number in range(200):
            await dispatch(harness.broker, f"m.map.{number}")
        while done < 200:
            await trio.sleep(0.1)

    assert reads <= 2


async def test_whoever_joins_after_the_cancellation_was_heard_is_stopped_too(
    autojump_clock: MockClock, harness: Harness
) -> None:
    """The watch of the run is open, the engine has dispatched, and the event came before that."""
    holding = Holding(harness)
    await set_status(harness.broker, "running")

    async with holding.worker:
        await dispatch(harness.broker, "first")
        await holding.begun.wait()
        await trio.sleep(2)
        await cancel(harness.broker)
        await dispatch(harness.broker, "second")
        await trio.sleep(0.2)
        await set_status(harness.broker, "cancelled")
        while len(holding.ended) < 2:
            await trio.sleep(0.05)
        await trio.sleep(1)

    assert set(holding.ended.values()) == {CancelReason.RUN_CANCELLED}
    assert published(harness) == {EventType.STEP_STARTED.value: 2}
