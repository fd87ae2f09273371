"""Tasks whose workers die again and again: who is to blame ends, who gets further goes on."""

from collections.abc import Awaitable, Callable
from functools import partial
from itertools import count

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import TaskContext, Worker
from trio_dagnats.attempt.past import MAX_CHANCES, MAX_STARTS
from trio_dagnats.testing import Harness, MemoryBroker
from trio_dagnats.wire.events import parse_event
from trio_dagnats.wire.text import compact

ACK_WAIT = 30.0
LIFE = 60.0
"""Virtual seconds after which a worker dies in any case."""
MANY = 40
"""Lives that nobody has who counts as a killer."""
Kill = Callable[[], Awaitable[None]]
numbers = count()


async def kills_at_once(ctx: TaskContext, kill: Kill) -> None:
    await kill()


async def kills_after_a_pause(ctx: TaskContext, kill: Kill) -> None:
    await ctx.pause(1)
    await kill()


async def kills_after_a_signal(ctx: TaskContext, kill: Kill) -> None:
    await ctx.wait_for_signal("go")
    await kill()


async def kills_after_a_checkpoint(ctx: TaskContext, kill: Kill) -> None:
    await ctx.checkpoint("the same")
    await kill()


async def kills_after_another_checkpoint(ctx: TaskContext, kill: Kill) -> None:
    await ctx.checkpoint(next(numbers))
    await kill()


async def kills_beside_a_wait(ctx: TaskContext, kill: Kill) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ctx.wait_for_signal, "never")
        await trio.sleep(1)
        await kill()


async def kills_in_an_item(ctx: TaskContext, kill: Kill) -> None:
    async def one(item: int) -> None:
        if item == 2:
            await kill()

    await ctx.map(one, range(4), limit=1)


async def waits_for_a_signal(ctx: TaskContext, kill: Kill) -> None:
    await ctx.wait_for_signal("never")


async def is_in_a_long_pause(ctx: TaskContext, kill: Kill) -> None:
    await ctx.pause(MANY * (LIFE + ACK_WAIT) * 2)


async def pauses_again_and_again(ctx: TaskContext, kill: Kill) -> None:
    for _ in range(10 * MANY):
        await ctx.pause(LIFE)


async def finishes_an_item_a_life(ctx: TaskContext, kill: Kill) -> None:
    async def one(item: int) -> None:
        await trio.sleep(0.8 * LIFE)

    await ctx.map(one, range(10 * MANY), limit=1)


async def lives(harness: Harness, body: Callable[[TaskContext, Kill], Awaitable[None]]) -> int:
    """Start a task and let its workers die, until it has failed; count its starts, up to MANY."""
    starts = 0

    async def live() -> None:
        broker, dead = MemoryBroker(harness.server), trio.Event()
        worker = Worker(broker)

        async def kill() -> None:
            dead.set()
            await trio.sleep_forever()

        @worker.handle("t", ack_wait=ACK_WAIT)
        async def handler(ctx: TaskContext) -> None:
            nonlocal starts
            starts += 1
            await body(ctx, kill)

        async with trio.open_nursery() as nursery:
            await nursery.start(partial(worker.start, handle_signals=False))
            with trio.move_on_after(LIFE):
                await dead.wait()
            broker.crash()
            nursery.cancel_scope.cancel()

    await harness.broker.kv_put("signals", "r.go", b"1", deadline=trio.current_time() + 10)
    task = compact({"run_id": "r", "step_id": "s"})
    await harness.broker.store("task.t.r", task, deadline=trio.current_time() + 10)
    while not failed(harness) and starts < MANY:
        await live()
        await trio.sleep(ACK_WAIT)
    return starts


def failed(harness: Harness) -> bool:
    """Say whether the task has failed for good."""
    records = harness.server.stream("WORKFLOW_HISTORY").read("history.r", harness.server.time_ns())
    found = [parse_event(record.body) for record in records]
    return any(b"without getting further" in event.payload for event in found)


@pytest.mark.parametrize(
    ("body", "starts"),
    [
        (kills_at_once, MAX_STARTS),
        (kills_after_a_pause, MAX_STARTS),
        (kills_after_a_signal, MAX_STARTS),
        (kills_after_a_checkpoint, MAX_STARTS),
        (kills_beside_a_wait, MAX_STARTS),
        (kills_in_an_item, MAX_STARTS),
        (kills_after_another_checkpoint, MAX_STARTS + MAX_CHANCES),
        (waits_for_a_signal, MANY),
        (is_in_a_long_pause, MANY),
        (pauses_again_and_again, MANY),
        (finishes_an_item_a_life, MANY),
    ],
)
async def test_a_task_that_kills_its_workers_ends_and_one_that_gets_further_goes_on(
    autojump_clock: MockClock,
    harness: Harness,
    body: Callable[[TaskContext, Kill], Awaitable[None]],
    starts: int,
) -> None:
    assert await lives(harness, body) == starts
