"""Trouble that one attempt, one handler or one server must not pass on to all others."""

import logging
from contextlib import suppress
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import Client, Retryable, TaskContext, Worker
from trio_dagnats.errors import UsageError, unfold
from trio_dagnats.testing import Harness
from trio_dagnats.worker.execution import execute

TASK = b'{"run_id":"r","step_id":"s"}'


async def put(harness: Harness, subject: str = "task.t.r", body: bytes = TASK) -> None:
    await harness.broker.store(subject, body, deadline=trio.current_time() + 10)


def answers(harness: Harness) -> list[str]:
    return [body for _, _, body, *_ in harness.server.answers]


async def leaked() -> trio.Cancelled:
    """Return a cancellation that has left its scope."""
    found: list[trio.Cancelled] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.sleep_forever()
        except trio.Cancelled as error:
            found.append(error)
            raise
    return found[0]


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_cancellation_that_a_handler_kept_and_raises_is_its_own_error(
    autojump_clock: MockClock, harness: Harness, *, grouped: bool
) -> None:
    worker = Worker(harness.broker)
    ended: list[str] = []

    @worker.handle("bystander")
    async def bystander(ctx: TaskContext) -> None:
        await trio.sleep(5)
        ended.append("bystander")

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        error = await leaked()
        raise BaseExceptionGroup("g", [error, ValueError("x")]) if grouped else error

    async with worker:
        await put(harness, "task.bystander.q", b'{"run_id":"q","step_id":"s"}')
        found = await harness.run("t")
        assert (found.kind, found.failure_type) == ("failed", "retriable")
        await trio.sleep(10)

    assert ended == ["bystander"]


async def test_a_handler_that_swallows_its_cancellation_is_handed_back_all_the_same(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker, grace=0)
    started = trio.Event()

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> str:
        started.set()
        with suppress(trio.Cancelled):
            await trio.sleep_forever()
        return "as if nothing had happened"

    async with worker:
        await put(harness)
        await started.wait()

    assert [line.end for line in worker.ledger] == ["handed back"]
    assert answers(harness) == ["-NAK"]


async def test_what_a_handler_raises_beside_its_cancellation_is_logged_and_changes_nothing(
    autojump_clock: MockClock, harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(harness.broker, grace=0)
    started = trio.Event()

    async def cleans_up_badly() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("bad clean-up")

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(cleans_up_badly)
            started.set()

    async with worker:
        await put(harness)
        await started.wait()

    assert answers(harness) == ["-NAK"]
    assert "bad clean-up" in caplog.text


async def test_a_handler_that_completes_after_its_cancellation_is_refused(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker, grace=0)
    started = trio.Event()
    told: list[str] = []

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True), pytest.raises(UsageError) as error:
                await ctx.complete("too late")
            told.append(str(error.value))

    async with worker:
        await put(harness)
        await started.wait()

    assert "can have no outcome any more: the worker is shutting down" in told[0]
    assert answers(harness) == ["-NAK"]


async def test_generators_are_no_handlers() -> None:
    worker = Worker("nats://localhost")

    def generator(ctx):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        yield ctx

    async def async_generator(ctx):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        yield ctx

    for handler in (generator, async_generator, partial(async_generator)):
        with pytest.raises(UsageError, match=r"is a generator; .*put_stream"):
            worker.handle("t", handler)


async def outage_of(harness: Harness, seconds: float) -> None:
    """Lose the connection for so long; the leases last longer."""
    harness.broker.disconnect()
    await trio.sleep(seconds)
    harness.broker.reconnect()


async def test_an_outage_as_a_handler_starts_does_not_end_the_worker(
    autojump_clock: MockClock, harness: Harness
) -> None:
    """The run cannot be watched meanwhile."""
    worker = Worker(harness.broker)
    started = trio.Event()

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> str:
        started.set()
        await trio.sleep(60)
        return "done"

    async with worker:
        await put(harness)
        await started.wait()
        await outage_of(harness, 20)
        await trio.sleep(60)

    assert answers(harness) == ["+ACK"]


async def test_an_outage_does_not_end_a_wait_for_a_signal(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)
    waiting = trio.Event()
    got: list[bytes] = []

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        await ctx.load_checkpoint()
        waiting.set()
        got.append(await ctx.wait_for_signal("go", timeout=300))

    async with Client(harness.broker) as client, worker:
        await put(harness)
        await waiting.wait()
        await outage_of(harness, 8)  # longer than a subscription may take, shorter than a read
        await client.run("r").signal("go", b"now")
        await trio.sleep(60)

    assert got == [b"now"]
    assert answers(harness) == ["+ACK"]


async def test_a_retry_in_place_during_an_outage_does_not_end_the_worker(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)
    started = trio.Event()
    calls = 0

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> str:
        nonlocal calls
        calls += 1
        started.set()
        await trio.sleep(1)
        if calls == 1:
            raise Retryable("again", delay=1)
        return "done"

    async with worker:
        await put(harness)
        await started.wait()
        await outage_of(harness, 30)
        await trio.sleep(60)

    assert answers(harness)[-1] == "+ACK"
    assert calls == 2


@pytest.mark.parametrize("name", ["WORKFLOW_HISTORY", "KV_checkpoints"])
async def test_a_stream_that_vanishes_does_not_end_the_worker(
    autojump_clock: MockClock,
    harness: Harness,
    name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What could not be stored is handed back, and done when the stream is there again."""
    caplog.set_level(logging.ERROR)
    worker = Worker(harness.broker)
    started = trio.Event()
    calls = 0

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        nonlocal calls
        calls += 1
        started.set()
        await trio.sleep(1)
        if calls == 1 and name == "KV_checkpoints":
            raise Retryable("again", delay=1)

    async with worker:
        await put(harness)
        await started.wait()
        gone = harness.server.streams.pop(name)
        await trio.sleep(10)
        harness.server.streams[name] = gone
        await trio.sleep(30)

    assert answers(harness)[-1] == "+ACK"


@pytest.mark.parametrize(
    "error", [KeyError("body"), ExceptionGroup("body", [KeyError("one")]), SystemExit(3)]
)
async def test_an_error_in_the_body_leaves_as_it_is(
    autojump_clock: MockClock, harness: Harness, error: BaseException
) -> None:
    """A group of the caller's own stays a group."""
    worker = Worker(harness.broker, grace=100)
    started = trio.Event()

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        started.set()
        await trio.sleep_forever()

    async def body() -> None:
        async with worker:
            await put(harness)
            await started.wait()
            raise error from OSError("why")

    with pytest.raises(type(error)) as raised:
        await body()

    assert raised.value is error
    assert str(error.__cause__) == "why"
    assert answers(harness) == ["-NAK"]


async def returns_nothing(ctx: TaskContext) -> None: ...


@pytest.mark.parametrize("tasks", [1, 2], ids=["one", "two at once"])
async def test_what_leaves_a_worker_names_the_task_type(
    autojump_clock: MockClock, harness: Harness, monkeypatch: pytest.MonkeyPatch, tasks: int
) -> None:
    """One error leaves as it is, several in a group; what was in flight is handed back."""

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("a fault of the worker's own")

    worker = Worker(harness.broker, grace=0)
    worker.handle("resize", returns_nothing)
    monkeypatch.setattr(execute, "bounded", fails)
    for number in range(tasks):
        body = b'{"run_id":"r%d","step_id":"s"}' % number
        await put(harness, f"task.resize.r{number}", body)

    with pytest.raises((RuntimeError, ExceptionGroup)) as caught:
        await worker.start(handle_signals=False)

    leaves = list(unfold(caught.value))[-tasks:]
    notes = sorted(note for leaf in leaves for note in leaf.__notes__)
    assert notes == [f"in r{number}.s attempt 1 of 'resize'" for number in range(tasks)]
    assert {answer.body for answer in harness.server.answers} == {"-NAK"}


async def test_a_worker_can_be_started_again_after_its_end(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> str:
        return ctx.run_id

    for number in (1, 2):
        async with worker:
            assert (await harness.run("t")).output == f"run-{number}"


async def test_two_workers_in_one_process_share_the_tasks(
    autojump_clock: MockClock, harness: Harness
) -> None:
    done: list[str] = []

    def make(name: str) -> Worker:
        worker = Worker(harness.broker, concurrency=1, worker_id=name)

        @worker.handle("t")
        async def handler(ctx: TaskContext) -> None:
            await trio.sleep(1)
            done.append(name)

        return worker

    async with make("one"), make("two"):
        for number in range(6):
            body = b'{"run_id":"r%d","step_id":"s"}' % number
            await put(harness, f"task.t.r{number}", body)
        await trio.sleep(10)

    assert sorted(done) == ["one"] * 3 + ["two"] * 3
