"""Bad values that a handler hands to its context: each is refused by name, and nothing is lost."""

from collections.abc import Awaitable, Callable

import pytest
from trio.testing import MockClock

from trio_dagnats import TaskContext, Worker
from trio_dagnats.errors import DagnatsError, Missing, TooLarge, UsageError
from trio_dagnats.testing import Harness

Call = Callable[[TaskContext], Awaitable[object]]
NUMBERS = [-1.0, float("nan"), float("inf"), float("-inf")]
NAMES = ["", "two words", "a*", "a>", ".a", "a.", "ä", "a\n"]
HUGE = "x" * 2**20


async def refused(harness: Harness, call: Call) -> DagnatsError:
    """Make a call in a handler; return what it raises. The handler goes on, and completes."""
    found: list[DagnatsError] = []
    worker = Worker(harness.broker)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> str:
        with pytest.raises(DagnatsError) as caught:
            await call(ctx)
        found.append(caught.value)
        return "went on"

    async with worker:
        assert (await harness.run("t")).output == "went on"
    return found[0]


@pytest.mark.parametrize("number", [*NUMBERS, 1e10])
async def test_an_absurd_pause_is_refused_by_its_value(
    autojump_clock: MockClock, harness: Harness, number: float
) -> None:
    error = await refused(harness, lambda ctx: ctx.pause(number))

    assert isinstance(error, UsageError)
    assert f"{number!r}" in str(error)
    assert "pause" in str(error)


@pytest.mark.parametrize("number", [-1.0, float("nan"), float("-inf")])
async def test_absurd_timeouts_and_delays_are_refused_by_their_values(
    autojump_clock: MockClock, harness: Harness, number: float
) -> None:
    calls: list[Call] = [
        lambda ctx: ctx.wait_for_signal("go", timeout=number),
        lambda ctx: ctx.fail_retry_after("slower", number),
    ]
    for call in calls:
        error = await refused(harness, call)
        assert isinstance(error, UsageError)
        assert f"{number!r}" in str(error)


@pytest.mark.parametrize("name", NAMES)
async def test_an_illegal_signal_name_is_refused_by_its_value(
    autojump_clock: MockClock, harness: Harness, name: str
) -> None:
    calls: list[Call] = [
        lambda ctx: ctx.wait_for_signal(name),
        lambda ctx: ctx.send_signal("run", name),
        lambda ctx: ctx.steering(name).__aenter__(),
    ]
    for call in calls:
        error = await refused(harness, call)
        assert isinstance(error, UsageError)
        assert repr(name) in str(error)


@pytest.mark.parametrize("value", [object(), {1: object()}, float("nan")])
async def test_what_is_no_json_is_refused_where_it_is_written(
    autojump_clock: MockClock, harness: Harness, value: object
) -> None:
    calls: list[Call] = [
        lambda ctx: ctx.checkpoint(value),
        lambda ctx: ctx.pause(1, value),
        lambda ctx: ctx.send_signal("run", "go", value),
    ]
    for call in calls:
        assert isinstance(await refused(harness, call), UsageError)


async def test_a_checkpoint_over_the_server_s_limit_is_refused_and_the_old_one_stays(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async def twice(ctx: TaskContext) -> None:
        await ctx.checkpoint("small")
        try:
            await ctx.checkpoint(HUGE)
        finally:
            assert await ctx.load_checkpoint() == b'"small"'

    for call in (twice, lambda ctx: ctx.pause(1, HUGE)):
        error = await refused(harness, call)
        assert isinstance(error, TooLarge)
        assert "1048576" in str(error)


async def test_without_the_bucket_for_checkpoints_the_calls_that_need_it_say_so(
    autojump_clock: MockClock, harness: Harness
) -> None:
    """A split engine has none: everything else works, a hand-back too."""
    del harness.server.streams["KV_checkpoints"]
    for call in (lambda ctx: ctx.checkpoint(1), lambda ctx: ctx.pause(1, 1)):
        error = await refused(harness, call)
        assert isinstance(error, Missing)
        assert "'checkpoints'" in str(error)
        assert "dagnats serve" in str(error)


async def test_without_the_bucket_for_signals_the_calls_that_need_it_say_so(
    autojump_clock: MockClock, harness: Harness
) -> None:
    del harness.server.streams["KV_signals"]
    for call in (lambda ctx: ctx.wait_for_signal("go"), lambda ctx: ctx.send_signal("r", "go")):
        error = await refused(harness, call)
        assert isinstance(error, Missing)
        assert "'signals'" in str(error)
        assert "dagnats serve" in str(error)
