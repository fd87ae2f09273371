"""Agent loops: bounds, states that no longer fit, checkpoints beside the state, retries."""

import json
from collections.abc import Callable

import pytest
import trio
from pydantic import BaseModel, Field
from trio.testing import MockClock

from trio_dagnats import Client, Continue, Fatal, Retry, Run, TaskContext, Worker, Workflow
from trio_dagnats.attempt.loop_bounds import LoopBounds
from trio_dagnats.client import RunStatus
from trio_dagnats.errors import RunFailed
from trio_dagnats.local import LocalEngine
from trio_dagnats.testing import Harness
from trio_dagnats.wire.text import NS


async def play(
    harness: Harness, worker: Worker, workflow: Workflow, given: object = 0, timeout: float = 900
) -> Run:
    """Run a workflow on a local engine until it has ended."""
    async with LocalEngine(harness.broker), Client(harness.broker) as client, worker:
        await client.register(workflow)
        run = await client.start(workflow.build().name, given)
        await run.wait(timeout)
    return run


def loop_of(iterations: int = 10, duration: float = 0.0, retries: int = 0) -> Workflow:
    workflow = Workflow("w")
    workflow.agent_loop(
        "loop", max_iterations=iterations, max_duration=duration, retry=Retry(retries, delay=0.01)
    )
    return workflow


async def output(harness: Harness, run: Run) -> object:
    async with Client(harness.broker) as client:
        return await client.run(run.id).output(timeout=1)


async def key(harness: Harness, run: Run, tail: str) -> bytes | None:
    found = await harness.broker.kv_get(
        "checkpoints", f"{run.id}.{tail}", deadline=trio.current_time() + 1
    )
    return found.value if found else None


async def test_a_handler_knows_how_many_iterations_are_left(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)

    @worker.agent_loop("loop")
    async def loop(
        ctx: TaskContext, left: list[int | None]
    ) -> Continue[list[int | None]] | list[int | None]:
        left = [*left, ctx.iterations_left]
        return Continue(left) if ctx.iterations_left else left

    run = await play(harness, worker, loop_of(4), [])

    assert await output(harness, run) == [3, 2, 1, 0]


async def test_the_warning_of_a_near_bound_comes_once(
    autojump_clock: MockClock, harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(harness.broker)

    @worker.agent_loop("loop")
    async def loop(ctx: TaskContext, n: int) -> Continue[int] | int:
        return n if not ctx.iterations_left else Continue(n + 1)

    await play(harness, worker, loop_of(20))

    (told,) = [r.getMessage() for r in caplog.records if "nears its bound" in r.getMessage()]
    assert told.endswith("iteration 16 of at most 20: 4 left")


async def test_a_handler_knows_how_much_of_the_duration_is_left(
    autojump_clock: MockClock, harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(harness.broker)
    seen: list[float] = []

    @worker.agent_loop("loop")
    async def loop(ctx: TaskContext, n: int) -> Continue[int] | int:
        assert ctx.duration_left is not None
        seen.append(round(ctx.duration_left))
        await trio.sleep(30)
        return n if n == 3 else Continue(n + 1)

    await play(harness, worker, loop_of(100, duration=100))

    assert seen == [100, 100, 70, 40]
    assert "nears its bound" not in caplog.text


def test_the_bounds_by_the_numbers() -> None:
    bounds = LoopBounds(max_iterations=10, max_duration=100, begun_ns=5 * NS)

    assert [bounds.iterations_left(n) for n in (0, 8, 9, 12)] == [9, 1, 0, 0]
    assert [bounds.duration_left(n * NS) for n in (0, 5, 55, 999)] == [100, 100, 50, 0]
    assert LoopBounds().iterations_left(3) is LoopBounds().duration_left(3) is None
    assert [bool(bounds.warning(n, 5 * NS)) for n in (0, 6, 7, 9)] == [False, False, True, True]
    assert [bool(bounds.warning(0, n * NS)) for n in (84, 85, 999)] == [False, True, True]
    assert not LoopBounds(max_iterations=1).warning(0, 0)
    assert LoopBounds(max_iterations=10, warn_at=3).warning(2, 0)


async def test_a_plain_handler_has_no_bounds(autojump_clock: MockClock, harness: Harness) -> None:
    worker = Worker(harness.broker)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> list[object]:
        return [ctx.iterations_left, ctx.duration_left]

    async with worker:
        assert (await harness.run("t")).output == [None, None]


async def test_failures_retries_and_iterations_within_moments_all_count(
    autojump_clock: MockClock, harness: Harness
) -> None:
    """All of it happens within the five seconds in which the server drops repeated ids."""
    worker = Worker(harness.broker)
    failed: set[int] = set()

    @worker.agent_loop("loop")
    async def loop(ctx: TaskContext, seen: list[int]) -> Continue[list[int]] | list[int]:
        if ctx.iteration in {0, 3, 4, 8} - failed:
            failed.add(ctx.iteration)
            raise ValueError("not this time")
        seen = [*seen, ctx.iteration]
        return seen if len(seen) == 10 else Continue(seen)

    run = await play(harness, worker, loop_of(10, retries=10), [])

    assert await output(harness, run) == list(range(10))
    async with Client(harness.broker) as client:
        assert (await client.run(run.id).wait(1)).steps["loop"].iterations == 9


async def test_the_handler_s_own_checkpoint_stands_beside_the_loop_s_state(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)
    tries = 0

    @worker.agent_loop("loop")
    async def loop(ctx: TaskContext, n: int) -> Continue[int] | list[object]:
        nonlocal tries
        tries += 1
        before = await ctx.load_checkpoint()
        await ctx.checkpoint({"tries": tries})
        if tries == 2:
            raise ValueError("once")
        return Continue(n + 1) if n < 2 else [n, json.loads(before or b"null")]

    run = await play(harness, worker, loop_of(retries=1))

    assert await output(harness, run) == [2, {"tries": 3}]


class Old(BaseModel):
    """The model that stored the state."""

    notes: list[str]


class New(BaseModel):
    """The same after a deploy: a field that old states lack."""

    notes: list[str]
    budget: int


class Lenient(BaseModel):
    """A model that reads old states."""

    notes: list[str]
    budget: int = 7


async def old_loop(ctx: TaskContext, state: Old) -> Continue[Old] | str:
    if ctx.iteration == 1:
        await trio.sleep_forever()
    return Continue(Old(notes=[*state.notes, "one"]))


async def new_loop(ctx: TaskContext, state: New) -> Continue[New] | str:
    raise AssertionError("the state must not reach it")


async def lenient_loop(ctx: TaskContext, state: Lenient) -> Continue[Lenient] | str:
    return f"{state.notes} {state.budget}"


def worker_of(harness: Harness, loop: Callable[..., object]) -> Worker:
    worker = Worker(harness.broker, grace=0)
    worker.agent_loop("loop", loop)
    return worker


async def across_a_deploy(harness: Harness, *loops: Callable[..., object]) -> tuple[Run, RunStatus]:
    """Run a loop whose worker is replaced every five seconds; the last one sees its end."""
    async with LocalEngine(harness.broker), Client(harness.broker) as client:
        await client.register(loop_of())
        run = await client.start("w", {"notes": []})
        for loop in (old_loop, *loops[:-1]):
            async with worker_of(harness, loop):
                await trio.sleep(5)
        async with worker_of(harness, loops[-1]):
            return run, (await run.wait()).status


async def test_a_stored_state_that_a_new_model_can_read_goes_on(
    autojump_clock: MockClock, harness: Harness
) -> None:
    run, status = await across_a_deploy(harness, lenient_loop)

    assert status is RunStatus.COMPLETED
    assert await output(harness, run) == "['one'] 7"


async def test_a_stored_state_that_a_new_model_cannot_read_waits_for_a_version_that_can(
    autojump_clock: MockClock, harness: Harness
) -> None:
    run, status = await across_a_deploy(harness, new_loop, lenient_loop)

    assert status is RunStatus.COMPLETED
    assert await output(harness, run) == "['one'] 7"


async def test_a_stored_state_that_nobody_can_read_fails_the_step_and_is_kept(
    autojump_clock: MockClock, harness: Harness
) -> None:
    run, status = await across_a_deploy(harness, new_loop)

    assert status is RunStatus.FAILED
    with pytest.raises(RunFailed, match=r"state\.budget: Field required; it is kept"):
        await output(harness, run)
    assert b'"state":{"notes":["one"]}' in (await key(harness, run, "loop") or b"")


class Aliased(BaseModel):
    """A state whose JSON has other names than its fields."""

    count: int = Field(alias="n")
    ratio: float = 0.5


async def test_a_state_with_aliases_is_read_back(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)

    @worker.agent_loop("loop")
    async def loop(ctx: TaskContext, state: Aliased) -> Continue[Aliased] | int:
        return state.count if state.count == 3 else Continue(Aliased(n=state.count + 1))

    run = await play(harness, worker, loop_of(), {"n": 0})

    assert await output(harness, run) == 3


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (Aliased(n=1, ratio=float("nan")), r"could not be read back: state\.ratio"),
        ({"n": 1}, "does not fit its annotation"),
    ],
)
async def test_a_state_that_could_not_be_read_back_fails_at_once(
    autojump_clock: MockClock, harness: Harness, state: Aliased, told: str
) -> None:
    worker = Worker(harness.broker)

    @worker.agent_loop("loop")
    async def loop(ctx: TaskContext, given: Aliased) -> Continue[Aliased] | int:
        return Continue(state)

    run = await play(harness, worker, loop_of(retries=3), {"n": 0})

    with pytest.raises(RunFailed, match=told):
        await output(harness, run)


async def test_a_state_over_the_server_s_limit_fails_at_once_and_says_the_limit(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)
    calls = 0

    @worker.agent_loop("loop")
    async def loop(ctx: TaskContext, state: str) -> Continue[str] | int:
        nonlocal calls
        calls += 1
        return Continue("x" * 2_000_000)

    run = await play(harness, worker, loop_of(retries=3), "")

    assert calls == 1
    with pytest.raises(RunFailed, match=r"state refused: .* more than the 1048576"):
        await output(harness, run)


async def test_a_loop_s_input_that_does_not_validate_fails_at_once(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)

    @worker.agent_loop("loop")
    async def loop(ctx: TaskContext, state: Old) -> Continue[Old] | int:
        raise Fatal("never called")

    run = await play(harness, worker, loop_of(retries=3), {"notes": 3})

    with pytest.raises(RunFailed, match=r"state \(from the step's input\)\.notes"):
        await output(harness, run)
