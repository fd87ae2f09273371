"""Steered blocks: what a message does that comes before, during, at the end of and after one."""

import json

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import CancelReason, Client, Inbox, TaskContext, Worker
from trio_dagnats.errors import Missing, UsageError
from trio_dagnats.local.engine import resources
from trio_dagnats.testing import Harness, MemoryBroker, MemoryServer
from trio_dagnats.worker.engine.signal_register import SignalRegister

RUN = "run-1"
"""The run of a harness's first task."""


async def send(ctx: TaskContext, *messages: str) -> None:
    """Send messages to the handler's own run."""
    for message in messages:
        await ctx.send_signal(ctx.run_id, "steer", message.encode())


async def think(inbox: Inbox, told: list[str], seconds: float = 10) -> None:
    """Do what takes a while, and tell how it ended."""
    try:
        await trio.sleep(seconds)
        told.append("thought")
    finally:
        told.append(f"left with {inbox.message!r}")


async def run_once(harness: Harness, worker: Worker) -> object:
    async with worker:
        return (await harness.run("t", timeout=600)).output


async def test_a_message_cancels_only_the_block_and_is_there_at_the_next_line(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> list[object]:
        conversation = ["question"]
        async with trio.open_nursery() as nursery, ctx.steering("steer") as inbox:
            nursery.start_soon(send, ctx, "shorter")
            await trio.sleep(10)
            conversation.append("never")
        assert inbox.message is not None
        conversation.append(inbox.message.decode())
        await trio.sleep(1)
        return [conversation, inbox.interrupted]

    assert await run_once(harness, worker) == [["question", "shorter"], True]


async def test_a_block_without_a_message_ends_with_its_result(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> list[object]:
        async with ctx.steering("steer") as inbox:
            await trio.sleep(100)
            answer = 42
        return [answer, inbox.message, inbox.interrupted]

    assert await run_once(harness, worker) == [42, None, False]


async def test_a_message_from_before_cancels_the_first_await(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)
    told: list[str] = []

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        await send(ctx, "early")
        async with ctx.steering("steer") as inbox:
            told.append("began")
            await think(inbox, told)

    await run_once(harness, worker)
    assert told == ["began", "left with b'early'"]


async def test_a_message_at_the_very_end_leaves_the_result_and_is_there(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> list[object]:
        async with trio.open_nursery() as nursery, ctx.steering("steer") as inbox:
            nursery.start_soon(send, ctx, "late")
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            answer = 42
        assert inbox.message is not None
        return [answer, inbox.message.decode(), inbox.interrupted]

    assert await run_once(harness, worker) == [42, "late", False]


async def test_a_message_from_between_two_blocks_is_the_next_one_s_or_the_next_wait_s(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)
    told: list[str] = []

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> str:
        for _ in range(2):
            async with ctx.steering("steer") as inbox:
                await think(inbox, told, seconds=1)
            if not told[2:]:
                await send(ctx, "between")
        await send(ctx, "again")
        return (await ctx.wait_for_signal("steer")).decode()

    assert await run_once(harness, worker) == "again"
    assert told == ["thought", "left with None", "left with b'between'"]


async def test_of_two_untaken_messages_the_later_one_is_left(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)
    told: list[str] = []

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        await send(ctx, "first", "second")
        for _ in range(2):
            async with ctx.steering("steer") as inbox:
                await think(inbox, told)

    await run_once(harness, worker)
    assert told == ["left with b'second'", "thought", "left with None"]


async def test_a_message_after_a_taken_one_goes_to_the_next_block(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)
    told: list[str] = []

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        for message in ("first", "second"):
            async with trio.open_nursery() as nursery, ctx.steering("steer") as inbox:
                nursery.start_soon(send, ctx, message)
                await think(inbox, told)

    await run_once(harness, worker)
    assert told == ["left with b'first'", "left with b'second'"]


async def test_every_open_block_of_the_name_gets_the_message(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)
    told: list[str] = []

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        async def tool() -> None:
            async with ctx.steering("steer") as inbox:
                await think(inbox, told)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(tool)
            nursery.start_soon(tool)
            await trio.sleep(1)
            await send(ctx, "stop")

    await run_once(harness, worker)
    assert told == ["left with b'stop'"] * 2


@pytest.mark.parametrize("commit", [False, True])
async def test_a_message_comes_again_to_a_handler_that_has_not_committed_it(
    autojump_clock: MockClock, harness: Harness, *, commit: bool
) -> None:
    """The first worker drains while the handler works on what it was told."""
    told: list[str] = []
    asked = trio.Event()

    def make() -> Worker:
        worker = Worker(harness.broker, grace=0)

        @worker.handle("t")
        async def handler(ctx: TaskContext) -> None:
            async with ctx.steering("steer") as inbox:
                if ctx.deliveries == 1:
                    await send(ctx, "hurry")
                await think(inbox, told)
            if commit:
                await ctx.checkpoint("told")
            asked.set()
            await trio.sleep(0 if ctx.deliveries > 1 else 3600)

        return worker

    async with make():
        body = json.dumps({"run_id": RUN, "step_id": "s"}).encode()
        await harness.broker.store("task.t.r", body, deadline=trio.current_time() + 1)
        await asked.wait()
    async with make():
        await trio.sleep(60)

    again = ["thought", "left with None"] if commit else ["left with b'hurry'"]
    assert told == ["left with b'hurry'", *again]


async def test_an_error_of_the_block_leaves_as_it_is(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> str:
        async def tool() -> None:
            raise ValueError("its own")

        try:
            async with ctx.steering("steer"):
                await tool()
        except ValueError as error:
            return str(error)
        return "no error"

    assert await run_once(harness, worker) == "its own"


async def test_the_run_s_end_is_not_swallowed_by_the_block(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)
    ends: list[object] = []

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        try:
            async with ctx.steering("steer"):
                await trio.sleep(3600)
        finally:
            ends.append(ctx.cancel_reason)

    async with worker, Client(harness.broker) as client:
        body = json.dumps({"run_id": RUN, "step_id": "s"}).encode()
        await harness.broker.store("task.t.r", body, deadline=trio.current_time() + 1)
        await trio.sleep(1)
        await client.run(RUN).cancel()
        await trio.sleep(1)

    assert ends == [CancelReason.RUN_CANCELLED]


async def test_a_wait_inside_the_block_still_gives_up_its_slot(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker, concurrency=1)

    @worker.handle("nap")
    async def nap(ctx: TaskContext) -> None:
        async with ctx.steering("steer"):
            await ctx.pause(100)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> str:
        return "in between"

    async with worker:
        body = json.dumps({"run_id": "other", "step_id": "s"}).encode()
        await harness.broker.store("task.nap.r", body, deadline=trio.current_time() + 1)
        await trio.sleep(5)
        assert (await harness.run("t", timeout=40)).output == "in between"


async def test_a_value_that_is_stored_after_its_wake_up_is_found_at_once(
    autojump_clock: MockClock, harness: Harness
) -> None:
    """In a cluster the reader that was woken may be faster than the store."""
    found: list[bytes] = []

    async def wait(register: SignalRegister) -> None:
        found.append((await register.wait()).value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, SignalRegister(harness.broker, RUN, "steer", 0))
        await trio.sleep(1)
        harness.broker.disconnect()
        harness.broker.reconnect()  # wakes whoever listens
        await trio.sleep(0.1)
        now_ns, subject = harness.broker.time_ns(), f"$KV.signals.{RUN}.steer"
        stream = harness.server.stream("KV_signals")
        stream.store(subject, b"x", {}, msg_id="", expect=None, now_ns=now_ns)

    assert found == [b"x"]
    assert trio.current_time() < 2


async def test_a_bad_name_and_a_missing_bucket_are_named(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    broker = MemoryBroker(memory_server)
    for spec in resources.STREAMS:
        await broker.ensure_stream(spec, deadline=trio.current_time() + 1)
    worker = Worker(broker)
    told: list[str] = []

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        for name, error in (("not legal", UsageError), ("steer", Missing)):
            with pytest.raises(error) as caught:
                async with ctx.steering(name):
                    raise AssertionError("must not begin")
            told.append(str(caught.value))

    async with worker:
        await broker.store("task.t.r", b'{"run_id":"r","step_id":"s"}', deadline=5)
        await trio.sleep(1)

    assert "signal name 'not legal'" in told[0]
    assert "nats kv add signals" in told[1]
