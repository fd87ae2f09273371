"""Handlers that block the event loop, and handlers that stand still."""

import json
import logging
import threading
from collections.abc import Callable, Iterator

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import TaskContext, Worker
from trio_dagnats.testing import Harness
from trio_dagnats.worker.observe.watchdog import process_stood

PATIENCE = 10.0
LOGGER = logging.getLogger("trio_dagnats.worker")


class Told(logging.Handler):
    """Collects what is told about one thing, from whatever thread, and lets a thread wait for it.

    Waiting for it is how a handler of these tests blocks the event loop.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._text = text
        self._came = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            self.records.append(record)
            self._came.set()

    def block(self) -> None:
        assert self._came.wait(PATIENCE)


@pytest.fixture
def told() -> Iterator[Callable[[str], Told]]:
    """Make a collector that is gone after the test."""
    made: list[Told] = []

    def make(text: str) -> Told:
        made.append(Told(text))
        LOGGER.addHandler(made[-1])
        return made[-1]

    yield make
    for handler in made:
        LOGGER.removeHandler(handler)


async def put(harness: Harness, run_id: str) -> None:
    body = json.dumps({"run_id": run_id, "step_id": "s"}).encode()
    await harness.broker.store(f"task.t.{run_id}", body, deadline=trio.current_time() + 10)


async def test_a_handler_that_blocks_the_loop_is_named_while_it_does(
    harness: Harness, told: Callable[[str], Told]
) -> None:
    blocks = told("blocks the event loop")
    worker = Worker(harness.broker)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> str:
        blocks.block()  # the guilty line
        return "over"

    async with worker:
        assert (await harness.run("t")).output == "over"

    (record,) = blocks.records
    text = record.getMessage()
    assert text.startswith("run-1.step attempt 1 of task type t blocks the event loop")
    assert "blocks.block()  # the guilty line" in text
    assert "trio/_core" not in text
    assert vars(record)["run_id"] == "run-1"


async def test_a_child_task_that_blocks_is_named_with_its_attempt(
    harness: Harness, told: Callable[[str], Told]
) -> None:
    blocks = told("blocks the event loop")
    worker = Worker(harness.broker)

    async def child() -> None:
        blocks.block()

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)

    async with worker:
        assert (await harness.run("t")).kind == "completed"

    (record,) = blocks.records
    assert "run-1.step attempt 1 of task type t, in its child task" in record.getMessage()
    assert ".child, blocks the event loop" in record.getMessage()


async def test_a_block_by_no_handler_is_named_by_its_stack(
    harness: Harness, told: Callable[[str], Told]
) -> None:
    blocks = told("blocks the event loop")
    worker = Worker(harness.broker)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        await trio.sleep_forever()

    async with worker:
        await trio.lowlevel.checkpoint()
        blocks.block()
        worker.stop()

    (record,) = blocks.records
    assert record.getMessage().startswith("Something that is no handler's task blocks")
    assert "blocks.block()" in record.getMessage()


async def test_the_end_of_a_block_is_told(harness: Harness, told: Callable[[str], Told]) -> None:
    blocks, again = (
        told("blocks the event loop"),
        told("the event loop runs again"),
    )
    worker = Worker(harness.broker)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        blocks.block()
        await trio.to_thread.run_sync(again.block)

    async with worker:
        assert (await harness.run("t")).kind == "completed"

    assert len(again.records) == 1


@pytest.mark.parametrize(
    ("late", "cpu"),
    [(0.0, 0.0), (0.1, 0.0), (5.0, 4.9), (1.0, 0.6)],
)
def test_a_thread_that_is_late_while_the_process_computes_is_held_by_it(
    late: float, cpu: float
) -> None:
    assert not process_stood(late, cpu)


@pytest.mark.parametrize(("late", "cpu"), [(5.0, 0.0), (5.0, 0.5), (0.6, 0.01)])
def test_a_process_that_was_stopped_is_no_blocked_loop(late: float, cpu: float) -> None:
    assert process_stood(late, cpu)


async def still(
    harness: Harness, seconds: float, handle: Callable[[TaskContext], object], told: Told
) -> list[str]:
    """Let a handler work for so many seconds; return what is told about it."""
    worker = Worker(harness.broker, grace=0)
    worker.handle("t", handle)
    async with worker:
        await put(harness, "r")
        await trio.sleep(seconds)
        worker.stop()
    return [record.getMessage() for record in told.records]


async def test_a_handler_that_makes_no_progress_is_named_once(
    autojump_clock: MockClock, harness: Harness, told: Callable[[str], Told]
) -> None:
    async def handler(ctx: TaskContext) -> None:
        await trio.Event().wait()  # for ever

    (text,) = await still(harness, 3600, handler, told("no progress"))

    assert text.startswith("r.s attempt 1 has made no progress for 300 s")
    assert "await trio.Event().wait()  # for ever" in text


async def test_a_handler_that_stands_still_again_is_named_again(
    autojump_clock: MockClock, harness: Harness, told: Callable[[str], Told]
) -> None:
    async def handler(ctx: TaskContext) -> None:
        await trio.sleep(1000)
        await trio.sleep(1000)

    assert len(await still(harness, 3600, handler, told("no progress"))) == 2


async def test_a_handler_that_polls_makes_progress(
    autojump_clock: MockClock, harness: Harness, told: Callable[[str], Told]
) -> None:
    async def handler(ctx: TaskContext) -> None:
        while True:
            await trio.sleep(59)

    assert await still(harness, 3600, handler, told("no progress")) == []


async def test_a_handler_whose_child_moves_makes_progress(
    autojump_clock: MockClock, harness: Harness, told: Callable[[str], Told]
) -> None:
    async def child() -> None:
        while True:
            await trio.sleep(7)

    async def handler(ctx: TaskContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(trio.sleep_forever)

    assert await still(harness, 3600, handler, told("no progress")) == []


@pytest.mark.parametrize("wait", ["pause", "signal"])
async def test_a_declared_wait_is_never_named(
    autojump_clock: MockClock, harness: Harness, told: Callable[[str], Told], wait: str
) -> None:
    async def handler(ctx: TaskContext) -> None:
        await (ctx.pause(36_000) if wait == "pause" else ctx.wait_for_signal("go"))

    assert await still(harness, 3600, handler, told("no progress")) == []
