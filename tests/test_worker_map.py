"""The durable map: order, bounds, tries that go on, items that change, what is left behind."""

from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
from pydantic import BaseModel
from trio.testing import MockClock

from trio_dagnats import Client, Continue, Fatal, Retry, Retryable, TaskContext, Worker, Workflow
from trio_dagnats.errors import Missing, RunFailed, UsageError
from trio_dagnats.local import LocalEngine
from trio_dagnats.local.engine import resources
from trio_dagnats.testing import Harness, MemoryBroker, MemoryServer

Handler = Callable[[TaskContext], Awaitable[object]]


async def play(harness: Harness, handler: Handler, retries: int = 0) -> object:
    """Run a one-step workflow to its end; return its output."""
    worker, workflow = Worker(harness.broker), Workflow("w")
    worker.handle("t", handler)
    workflow.step("t", retry=Retry(retries, delay=1.0))
    async with LocalEngine(harness.broker), Client(harness.broker) as client, worker:
        await client.register(workflow)
        run = await client.start("w")
        return await run.output(timeout=600)


async def entries(harness: Harness) -> list[str]:
    """Return the keys of the checkpoints bucket, without their runs."""
    found = await harness.broker.kv_entries("checkpoints", deadline=trio.current_time() + 1)
    return [entry.key.partition(".")[2] for entry in found]


def writes(harness: Harness) -> int:
    """Return how often something was written to the checkpoints bucket."""
    return harness.server.stream("KV_checkpoints")._last


async def test_results_come_in_the_order_of_the_items(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async def slow_first(n: int) -> int:
        await trio.sleep(10 - n)
        return n * n

    async def handler(ctx: TaskContext) -> list[int]:
        return await ctx.map(slow_first, range(10), limit=4)

    assert await play(harness, handler) == [n * n for n in range(10)]


async def test_no_more_than_the_limit_run_at_once(
    autojump_clock: MockClock, harness: Harness
) -> None:
    running = most = 0

    async def item(n: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1

    async def handler(ctx: TaskContext) -> None:
        await ctx.map(item, range(20), limit=3)

    await play(harness, handler)
    assert most == 3


async def test_a_retry_runs_only_what_is_not_finished_and_each_item_is_written_once(
    autojump_clock: MockClock, harness: Harness
) -> None:
    ran: list[int] = []

    async def handler(ctx: TaskContext) -> list[int]:
        async def item(n: int) -> int:
            ran.append(n)
            await trio.sleep(0 if n < 50 else 1)
            if ctx.attempt == 1 and n == 50:
                raise ValueError("not yet")
            return -n

        return await ctx.map(item, range(100), limit=5)

    assert await play(harness, handler, retries=1) == [-n for n in range(100)]
    assert len(ran) <= 100 + 5
    assert sorted(set(ran)) == list(range(100))
    assert writes(harness) == 100


async def test_a_redelivery_in_place_goes_on_too(
    autojump_clock: MockClock, harness: Harness
) -> None:
    ran: list[int] = []

    async def handler(ctx: TaskContext) -> list[int]:
        async def item(n: int) -> int:
            ran.append(n)
            if len(ran) == 3:
                raise Retryable("again", delay=1)
            return n

        return await ctx.map(item, range(5), limit=1)

    assert await play(harness, handler) == [0, 1, 2, 3, 4]
    assert ran == [0, 1, 2, 2, 3, 4]


async def test_the_first_error_cancels_the_siblings_and_decides_by_its_kind(
    autojump_clock: MockClock, harness: Harness
) -> None:
    cancelled: list[int] = []

    async def item(n: int) -> None:
        if n == 2:
            await trio.sleep(1)
            raise Fatal("the third is bad")
        try:
            await trio.sleep(100)
        except trio.Cancelled:
            cancelled.append(n)
            raise

    async def handler(ctx: TaskContext) -> None:
        await ctx.map(item, range(9), limit=3)

    with pytest.raises(RunFailed, match="the third is bad"):
        await play(harness, handler, retries=5)
    assert sorted(cancelled) == [0, 1]


async def test_items_that_change_between_two_tries_run_again_and_no_others(
    autojump_clock: MockClock, harness: Harness
) -> None:
    ran: list[str] = []

    async def handler(ctx: TaskContext) -> list[str]:
        async def item(name: str) -> str:
            ran.append(name)
            if name == "broken":
                raise ValueError(name)
            return name.upper()

        first = ctx.attempt == 1
        names = ["a", "b", "c", "broken"] if first else ["a", "new", "c", "d", "b"]
        return await ctx.map(item, names, limit=1)

    assert await play(harness, handler, retries=1) == ["A", "NEW", "C", "D", "B"]
    assert ran == ["a", "b", "c", "broken", "new", "d", "b"]


async def test_fewer_items_than_before_give_only_their_results(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async def handler(ctx: TaskContext) -> list[int]:
        done = await ctx.map(double, range(10 if ctx.attempt == 1 else 3))
        if ctx.attempt == 1:
            raise ValueError("after the map")
        return done

    assert await play(harness, handler, retries=1) == [0, 2, 4]


async def double(n: int) -> int:
    return 2 * n


class Page(BaseModel):
    """An item."""

    url: str


class Summary(BaseModel):
    """A result."""

    url: str
    words: int


async def summarise(page: Page) -> Summary:
    assert isinstance(page, Page)
    return Summary(url=page.url, words=len(page.url))


async def test_items_and_results_are_what_the_annotations_say_on_every_try(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async def handler(ctx: TaskContext) -> list[str]:
        pages: list[object] = [Page(url="a"), {"url": "bc"}]
        found = await ctx.map(summarise, pages)  # type: ignore[arg-type]  # as from JSON
        assert all(isinstance(one, Summary) for one in found)
        if ctx.attempt < 3:
            raise ValueError("again")
        return [f"{one.url} {one.words}" for one in found]

    assert await play(harness, handler, retries=5) == ["a 1", "bc 2"]
    assert writes(harness) == 2


async def test_without_annotations_a_result_is_its_json_on_the_first_try_too(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async def pair(n):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - the point
        return (n, {"n": n})

    async def handler(ctx: TaskContext) -> bool:
        return await ctx.map(pair, [1]) == [[1, {"n": 1}]]

    assert await play(harness, handler) is True


async def test_a_result_type_that_has_changed_runs_the_item_again(
    autojump_clock: MockClock, harness: Harness
) -> None:
    ran: list[str] = []

    async def handler(ctx: TaskContext) -> object:
        async def item(n: int) -> int | str:
            ran.append(f"attempt {ctx.attempt}")
            return n if ctx.attempt == 1 else str(n)

        item.__annotations__["return"] = int if ctx.attempt == 1 else str
        found = await ctx.map(item, [7])
        if ctx.attempt == 1:
            raise ValueError("deploy")
        return found

    assert await play(harness, handler, retries=1) == ["7"]
    assert ran == ["attempt 1", "attempt 2"]


async def test_two_maps_keep_their_own_entries_by_order_and_by_name(
    autojump_clock: MockClock, harness: Harness
) -> None:
    ran: list[tuple[str, int]] = []

    async def item(tag: str, n: int) -> int:
        ran.append((tag, n))
        return n

    async def handler(ctx: TaskContext) -> list[list[int]]:
        first = await ctx.map(partial(item, "1"), [1, 2])
        second = await ctx.map(partial(item, "2"), [1, 2, 3])
        named = await ctx.map(partial(item, "x"), [1], name="x")
        if ctx.attempt == 1:
            raise ValueError("again")
        return [first, second, named]

    assert await play(harness, handler, retries=1) == [[1, 2], [1, 2, 3], [1]]
    assert len(ran) == 6


async def test_each_iteration_of_a_loop_maps_anew_and_a_retried_one_goes_on(
    autojump_clock: MockClock, harness: Harness
) -> None:
    ran: list[int] = []
    worker, workflow = Worker(harness.broker), Workflow("w")
    workflow.agent_loop("t", max_iterations=9, retry=Retry(9, delay=1.0))

    @worker.agent_loop("t")
    async def loop(ctx: TaskContext, total: int) -> Continue[int] | int:
        async def item(n: int) -> int:
            ran.append(n)
            if len(ran) == 5:
                raise ValueError("once")
            return n + ctx.iteration

        total += sum(await ctx.map(item, range(3), limit=1))
        return total if ctx.iteration == 2 else Continue(total)

    async with LocalEngine(harness.broker), Client(harness.broker) as client, worker:
        await client.register(workflow)
        assert await (await client.start("w", 0)).output(timeout=600) == 3 + 6 + 9
        await trio.sleep(1)
    assert ran == [0, 1, 2, 0, 1, 1, 2, 0, 1, 2]
    assert await entries(harness) == ["t"]


@pytest.mark.parametrize("ending", ["complete", "fatal", "last retry"])
async def test_an_outcome_that_ends_the_step_clears_the_entries(
    autojump_clock: MockClock, harness: Harness, ending: str
) -> None:
    before: list[int] = []

    async def handler(ctx: TaskContext) -> None:
        before.append(len(await entries(harness)))
        await ctx.map(double, range(4))
        if ending != "complete":
            raise Fatal("no") if ending == "fatal" else ValueError("no")

    try:
        await play(harness, handler, retries=2)
    except RunFailed:
        assert ending != "complete"

    assert before == ([0, 4, 4] if ending == "last retry" else [0])
    assert await entries(harness) == []


async def test_a_cancelled_run_clears_the_entries(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker, workflow = Worker(harness.broker), Workflow("w")
    workflow.step("t")

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        await ctx.map(double, range(4))
        await trio.sleep(3600)

    async with LocalEngine(harness.broker), Client(harness.broker) as client, worker:
        await client.register(workflow)
        run = await client.start("w")
        await trio.sleep(5)
        assert len(await entries(harness)) == 4
        await run.cancel()
        await trio.sleep(5)
        assert await entries(harness) == []


async def test_no_items_are_no_results(autojump_clock: MockClock, harness: Harness) -> None:
    async def handler(ctx: TaskContext) -> list[int]:
        return await ctx.map(double, [])

    assert await play(harness, handler) == []


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda ctx: ctx.map(double, [1], limit=0), "limit of map .* not 0"),
        (lambda ctx: ctx.map(double, [1], limit=2.5), r"limit of map .* not 2\.5"),
        (lambda ctx: ctx.map(double, [1], limit=float("nan")), "limit of map .* not nan"),
        (lambda ctx: ctx.map(double, [1, "x"]), r"items\[1\]: Input should be a valid integer"),
        (lambda ctx: ctx.map(anything, [1, object()]), r"items\[1\]: cannot write object as JSON"),
        (lambda ctx: ctx.map(anything, [float("nan")]), r"items\[0\]: cannot write NaN"),
        (lambda ctx: ctx.map(double, range(10_001)), "at most 10000 items, not 10001"),
        (lambda ctx: ctx.map(double, [1], name="a.b"), "map name 'a.b' is not legal"),
        (lambda ctx: ctx.map(double, [1], name="7"), "map name '7' is not legal"),
        (lambda ctx: ctx.map(double, [1], name="twice"), "'twice' was called already"),
        (lambda ctx: ctx.map(len, [1]), "async function, not len"),
        (lambda ctx: ctx.map(no_item, [1]), "no_item must take"),
    ],
)
async def test_bad_input_is_named_before_anything_runs(
    autojump_clock: MockClock,
    harness: Harness,
    call: Callable[[TaskContext], Awaitable[object]],
    told: str,
) -> None:
    async def handler(ctx: TaskContext) -> None:
        await ctx.map(double, [], name="twice")
        with pytest.raises(UsageError, match=told):
            await call(ctx)

    assert await play(harness, handler) is None
    assert writes(harness) == 0


async def anything(value: object) -> object:
    return value


async def no_item() -> None: ...


@pytest.mark.parametrize(
    ("result", "told"),
    [
        (object(), r"result of items\[0\] does not fit"),
        (float("nan"), r"result of items\[0\]"),
        ("x" * 2_000_000, r"result of items\[0\] refused: .* more than the 1048576"),
    ],
)
async def test_a_result_that_cannot_be_stored_fails_for_good_and_names_the_item(
    autojump_clock: MockClock, harness: Harness, result: object, told: str
) -> None:
    calls = 0

    async def item(n: int) -> object:
        nonlocal calls
        calls += 1
        return result

    async def handler(ctx: TaskContext) -> None:
        await ctx.map(item, [1])

    with pytest.raises(RunFailed, match=told):
        await play(harness, handler, retries=3)
    assert calls == 1


async def test_without_the_bucket_the_call_says_so_before_anything_runs(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    broker = MemoryBroker(memory_server)
    for spec in resources.STREAMS:
        await broker.ensure_stream(spec, deadline=trio.current_time() + 1)
    worker = Worker(broker)
    told: list[str] = []

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        with pytest.raises(Missing) as missing:
            await ctx.map(double, [1])
        told.append(str(missing.value))

    async with worker:
        await broker.store("task.t.r", b'{"run_id":"r","step_id":"s"}', deadline=5)
        await trio.sleep(1)

    assert "nats kv add checkpoints" in told[0]
