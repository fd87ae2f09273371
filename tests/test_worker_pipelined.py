"""``pipeline_started``: the handler does not wait for its ``step.started``, its outcome does."""

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import CancelReason, Fatal, Retryable, TaskContext, Worker
from trio_dagnats.errors import NotStored
from trio_dagnats.testing import Harness
from trio_dagnats.transport.memory import MemoryBroker
from trio_dagnats.wire.events import parse_event
from trio_dagnats.wire.names import WORKFLOW_HISTORY

Handler = Callable[[TaskContext], Awaitable[object]]


def soon() -> float:
    return trio.current_time() + 10


def worker_of(broker: MemoryBroker, handler: Handler, *, grace: float = 25) -> Worker:
    worker = Worker(broker, pipeline_started=True, grace=grace)
    worker.handle("t", handler)
    return worker


async def types(harness: Harness) -> list[str]:
    """Return the types of all events, in their order."""
    records = await harness.broker.records(WORKFLOW_HISTORY, "history.>", deadline=soon())
    return [parse_event(record.body).type for record in records]


def answers(harness: Harness) -> list[str]:
    return [answer.body for answer in harness.server.answers]


async def test_a_handler_begins_before_its_event_is_acknowledged(
    autojump_clock: MockClock, harness: Harness
) -> None:
    begun: list[float] = []

    async def handler(ctx: TaskContext) -> None:
        begun.append(trio.current_time())

    own = MemoryBroker(harness.server)
    async with worker_of(own, handler):
        before = trio.current_time()
        own.acks_to_lose = 1
        await harness.run("t", timeout=60)

    assert begun[0] < before + 1
    assert trio.current_time() >= before + 5  # the outcome has waited for the second send's answer
    assert set(await types(harness)) == {"step.started", "step.completed"}


async def complete(ctx: TaskContext) -> None:
    await ctx.complete(1)


async def fail(ctx: TaskContext) -> None:
    raise ValueError("no")


async def fail_for_good(ctx: TaskContext) -> None:
    raise Fatal("never")


async def retry_once(ctx: TaskContext) -> None:
    if ctx.deliveries == 1:
        raise Retryable("again")


@pytest.mark.parametrize(
    ("handler", "kind"),
    [
        (complete, "step.completed"),
        (fail, "step.failed"),
        (fail_for_good, "step.failed"),
        (retry_once, "step.completed"),
    ],
)
@pytest.mark.parametrize("lost", [0, 1, 2, 3])
async def test_every_outcome_comes_once_and_after_its_start(
    handler: Handler, kind: str, lost: int, autojump_clock: MockClock, harness: Harness
) -> None:
    own = MemoryBroker(harness.server)
    async with worker_of(own, handler):
        own.acks_to_lose = lost
        await harness.run("t", timeout=600)

    first, *between, last = await types(harness)
    assert (first, last) == ("step.started", kind)
    assert set(between) <= {"step.started"}
    assert answers(harness)[-1] == "+ACK"


async def test_a_pause_need_not_wait_for_the_event(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async def pause(ctx: TaskContext) -> float:
        before = trio.current_time()
        await ctx.pause(60)
        return trio.current_time() - before

    async with worker_of(harness.broker, pause):
        outcome = await harness.run("t", timeout=600)

    assert outcome.output == pytest.approx(60)
    assert await types(harness) == ["step.started", "step.completed"]


@pytest.mark.parametrize("declares", [0, 1])
async def test_an_event_that_is_refused_ends_the_handler(
    declares: int, autojump_clock: MockClock, harness: Harness
) -> None:
    reasons: list[CancelReason | None] = []
    own = MemoryBroker(harness.server)
    history = harness.server.streams[WORKFLOW_HISTORY]

    async def handler(ctx: TaskContext) -> str:
        if ctx.deliveries > 1:
            return "at last"
        # The first send was stored, and nobody knows; the second one will be refused.
        del harness.server.streams[WORKFLOW_HISTORY]
        try:
            if declares:
                await ctx.complete("too early")
            await trio.sleep_forever()
        except NotStored:
            await trio.sleep_forever()
        finally:
            reasons.append(ctx.cancel_reason)
            harness.server.streams[WORKFLOW_HISTORY] = history
        return "never"

    async with worker_of(own, handler):
        own.acks_to_lose = 1
        outcome = await harness.run("t", timeout=600)

    assert reasons == [CancelReason.NOT_STARTED]
    assert outcome.output == "at last"
    assert answers(harness) == ['-NAK {"delay": 1000000000}', "+ACK"]
    assert (await types(harness)).count("step.completed") == 1


@pytest.mark.parametrize("waits", [0, 1])
async def test_a_drain_before_the_event_is_acknowledged_hands_back(
    waits: int, autojump_clock: MockClock, harness: Harness
) -> None:
    begun, own = trio.Event(), MemoryBroker(harness.server)

    async def handler(ctx: TaskContext) -> str:
        if ctx.deliveries == 1:
            own.disconnect()
            begun.set()
            if not waits:
                await trio.sleep_forever()
        return "done"

    async def drain(worker: Worker) -> None:
        await begun.wait()
        worker.stop()
        await trio.sleep(1)
        own.reconnect()

    async with trio.open_nursery() as nursery:
        worker = worker_of(own, handler, grace=0)
        nursery.start_soon(drain, worker)
        # The end of the watchdog's thread takes real time, in which the virtual clock runs on.
        nursery.start_soon(partial(harness.run, "t", timeout=float("inf")))
        await worker.start()
        async with worker_of(harness.broker, handler):
            while "step.completed" not in await types(harness):
                await trio.sleep(1)

    assert (await types(harness)).count("step.completed") == 1
