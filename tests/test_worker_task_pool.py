"""Attempts that follow each other in one trio task know nothing of each other."""

import gc
import logging
import weakref
from contextvars import ContextVar

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import Fatal, TaskContext, Worker
from trio_dagnats.attempt.reasons import CancelReason
from trio_dagnats.testing import Harness
from trio_dagnats.worker.attempts.attempt import Attempt

seen: ContextVar[str] = ContextVar("seen", default="")
listed: ContextVar[list[int]] = ContextVar("listed")
anything: ContextVar[object] = ContextVar("anything")
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


async def run_many(
    harness: Harness, task_type: str, count: int, timeout: float = 10.0
) -> list[object]:
    """Run as many steps at the same time; return their outputs."""
    outputs: list[object] = []

    async def run_one() -> None:
        outputs.append((await harness.run(task_type, timeout=timeout)).output)

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
        for other in list(own.in_flight.live):
            if other is not own and not other.returned:
                other.cancel(CancelReason.LEASE_LOST)

    async with worker:
        with trio.move_on_after(5):  # of virtual time: the others have no outcome
            await run_many(harness, "t", 50)

    assert len(ran) == 1


async def test_a_variable_with_an_equal_value_is_another_one(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker, concurrency=50)
    outer: list[int] = []
    before = listed.set(outer)

    @worker.handle("t")
    async def note(ctx: TaskContext) -> bool:
        same = listed.get() is outer
        listed.set([])
        return same

    async with worker:
        assert await run_many(harness, "t", 50) == [True] * 50
    listed.reset(before)


async def test_a_variable_may_hold_what_cannot_be_compared(
    autojump_clock: MockClock, harness: Harness
) -> None:
    class Ambiguous:
        """As arrays are: two of them are neither equal nor not."""

        def __eq__(self, other: object) -> bool:
            raise ValueError("the truth value is ambiguous")

        __hash__ = None  # type: ignore[assignment]

    worker = Worker(harness.broker, concurrency=50)
    before = anything.set(Ambiguous())

    @worker.handle("t")
    async def note(ctx: TaskContext) -> int:
        anything.set(Ambiguous())
        return 1

    async with worker:
        assert await run_many(harness, "t", 50) == [1] * 50
    anything.reset(before)


@pytest.mark.parametrize("error", [ValueError, Fatal, ExceptionGroup])
async def test_an_attempt_that_fails_leaves_no_garbage(
    autojump_clock: MockClock,
    harness: Harness,
    caplog: pytest.LogCaptureFixture,
    error: type[Exception],
) -> None:
    caplog.set_level(logging.CRITICAL, "trio_dagnats.worker")  # what is kept holds its traceback
    worker = Worker(harness.broker)
    attempts: list[weakref.ref[Attempt]] = []

    @worker.handle("t")
    async def fail(ctx: TaskContext) -> None:
        attempts.append(weakref.ref(ctx._attempt))
        raise error("no", [ValueError()]) if error is ExceptionGroup else error("no")

    gc.collect()
    gc.disable()
    try:
        async with worker:
            for _ in range(5):
                assert (await harness.run("t")).kind == "failed"
            await trio.sleep(1)
            assert [attempt() for attempt in attempts] == [None] * 5
    finally:
        gc.enable()


async def test_an_attempt_whose_lease_ended_in_line_does_not_run(
    autojump_clock: MockClock, harness: Harness
) -> None:
    """The first handler stands still for longer than the lease of those behind it lasts."""
    worker = Worker(harness.broker, concurrency=50)
    late: list[str] = []
    begun: list[str] = []

    @worker.handle("t", ack_wait=30)
    async def stand_still(ctx: TaskContext) -> int:
        begun.append(ctx.run_id)
        if len(begun) == 1:
            autojump_clock.jump(40)
            await trio.lowlevel.checkpoint()
        elif ctx._attempt.lease_until <= trio.current_time():
            late.append(ctx.run_id)
        return 1

    async with worker:
        assert await run_many(harness, "t", 40, timeout=1000) == [1] * 40

    assert late == []
