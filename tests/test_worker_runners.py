"""Attempts that follow each other in one trio task know nothing of each other."""

from contextvars import ContextVar

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import TaskContext, Worker
from trio_dagnats.testing import Harness
from trio_dagnats.worker.reasons import CancelReason

seen: ContextVar[str] = ContextVar("seen", default="")
Task = trio.lowlevel.Task


async def test_the_next_attempt_takes_the_task_of_the_last(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)
    tasks: list[tuple[Task, str]] = []

    async def note(ctx: TaskContext) -> None:
        task = trio.lowlevel.current_task()
        tasks.append((task, task.name))

    worker.handle("a", note)
    worker.handle("b", note)
    async with worker:
        await harness.run("a")
        await harness.run("b")

    (first, name_of_first), (second, name_of_second) = tasks
    assert first is second
    assert (name_of_first, name_of_second) == ("a", "b")


async def test_context_variables_are_those_of_one_attempt(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)

    @worker.handle("t")
    async def note(ctx: TaskContext) -> str:
        before = seen.get()
        seen.set(ctx.run_id)
        return before

    async with worker:
        outcomes = [(await harness.run("t")).output for _ in range(3)]

    assert outcomes == ["", "", ""]


async def test_a_cancelled_task_is_not_used_again(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)
    tasks: list[Task] = []

    @worker.handle("t")
    async def fail_late(ctx: TaskContext) -> None:
        tasks.append(trio.lowlevel.current_task())
        with trio.CancelScope() as own:
            own.cancel()
            await trio.sleep_forever()
        if ctx.input == b'"old"':
            await trio.sleep(120)  # old enough for its scope to have the lease as its deadline

    async with worker:
        for given in ("new", "old", "new", "new"):
            await harness.run("t", given, timeout=600)

    assert tasks[0] is tasks[1]
    assert tasks[1] is not tasks[2]
    assert tasks[2] is tasks[3]


async def test_a_scope_left_open_is_named_and_harms_nobody(
    autojump_clock: MockClock,
    harness: Harness,
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = Worker(harness.broker)

    @worker.handle("sloppy")
    async def sloppy(ctx: TaskContext) -> int:
        trio.CancelScope().__enter__()
        return 1

    @worker.handle("neat")
    async def neat(ctx: TaskContext) -> int:
        await trio.sleep(1)
        return 2

    async with worker, trio.open_nursery() as nursery:
        nursery.start_soon(harness.run, "neat")
        assert (await harness.run("sloppy")).output == 1
        assert (await harness.run("neat")).output == 2

    assert "sloppy: its handler has left a cancel scope open" in caplog.text


async def test_no_task_is_left_when_the_worker_has_ended(
    autojump_clock: MockClock, harness: Harness
) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    worker = Worker(harness.broker)

    @worker.handle("t")
    async def wait(ctx: TaskContext) -> None:
        await trio.sleep(1)

    async with worker, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(harness.run, "t")

    assert trio.lowlevel.current_statistics().tasks_living == before


async def run_many(harness: Harness, task_type: str, count: int) -> list[object]:
    """Run as many steps at the same time; return their outputs."""
    outputs: list[object] = []

    async def run_one() -> None:
        outputs.append((await harness.run(task_type)).output)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(run_one)
    return outputs


async def test_handlers_that_do_not_wait_follow_each_other_in_few_tasks(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker, concurrency=50)
    tasks: set[Task] = set()

    @worker.handle("t")
    async def note(ctx: TaskContext) -> int:
        tasks.add(trio.lowlevel.current_task())
        return 1

    async with worker:
        assert await run_many(harness, "t", 50) == [1] * 50

    assert len(tasks) <= 2


async def test_handlers_that_wait_for_each_other_all_get_a_task(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker, concurrency=50)
    tasks: set[Task] = set()
    all_here = trio.Event()

    @worker.handle("t")
    async def meet(ctx: TaskContext) -> int:
        tasks.add(trio.lowlevel.current_task())
        if len(tasks) == 50:
            all_here.set()
        await all_here.wait()
        return 1

    async with worker:
        assert await run_many(harness, "t", 50) == [1] * 50


async def test_one_that_waits_does_not_hold_up_those_behind_it(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker, concurrency=50)
    begun: list[int] = []
    last = trio.Event()

    @worker.handle("t")
    async def every_third_waits(ctx: TaskContext) -> int:
        begun.append(len(begun))
        if len(begun) == 50:
            last.set()
        elif len(begun) % 3 == 1:
            await last.wait()
        return 1

    async with worker:
        assert await run_many(harness, "t", 50) == [1] * 50


async def test_context_variables_do_not_reach_those_behind(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker, concurrency=50)
    outer = seen.set("outer")

    @worker.handle("t")
    async def note(ctx: TaskContext) -> str:
        before = seen.get()
        seen.set(ctx.run_id)
        return before

    async with worker:
        assert await run_many(harness, "t", 50) == ["outer"] * 50
    seen.reset(outer)


async def test_one_that_is_ended_while_it_stands_in_line_does_not_run(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker, concurrency=50)
    ran: list[str] = []

    @worker.handle("t")
    async def end_all_others(ctx: TaskContext) -> None:
        ran.append(ctx.run_id)
        own = ctx._attempt
        for other in list(own.hub.live):
            if other is not own and not other.returned:
                other.cancel(CancelReason.LEASE_LOST)

    async with worker:
        with trio.move_on_after(5):  # of virtual time: the others have no outcome
            await run_many(harness, "t", 50)

    assert len(ran) == 1
