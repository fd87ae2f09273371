"""What a handler's ending means: the outcome table, on the in-memory server in virtual time."""

import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import trio
from pydantic import BaseModel
from trio.testing import MockClock

from trio_dagnats import (
    Continue,
    Fatal,
    RateLimited,
    Retryable,
    TaskContext,
    Worker,
)
from trio_dagnats.errors import OutcomeError, UsageError
from trio_dagnats.testing import Harness, Outcome

Handler = Callable[[TaskContext], Coroutine[Any, Any, object]]


async def outcome_of(harness: Harness, handler: Handler, given: object = None) -> Outcome:
    """Run one handler on one task."""
    worker = Worker(harness.broker)
    worker.handle("t", handler)
    async with worker:
        return await harness.run("t", given, timeout=600)


def answers(harness: Harness) -> list[str]:
    """Return the answers to task messages, in order."""
    return [answer.body for answer in harness.server.answers]


async def test_a_returned_value_completes(autojump_clock: MockClock, harness: Harness) -> None:
    async def handler(ctx: TaskContext) -> dict[str, int]:
        return {"n": 1}

    assert await outcome_of(harness, handler) == Outcome(kind="completed", output={"n": 1})
    assert answers(harness) == ["+ACK"]


async def test_returned_bytes_are_the_json_itself(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async def handler(ctx: TaskContext) -> bytes:
        return b"[1, 2]"

    assert (await outcome_of(harness, handler)).output == [1, 2]


async def test_input_is_the_raw_json(autojump_clock: MockClock, harness: Harness) -> None:
    async def handler(ctx: TaskContext) -> str:
        return ctx.input.decode()

    assert (await outcome_of(harness, handler, {"a": 1})).output == '{"a":1}'


async def test_nothing_returned_completes_without_output(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async def handler(ctx: TaskContext) -> None:
        pass

    assert await outcome_of(harness, handler) == Outcome(kind="completed")


async def test_a_declared_outcome_stands_whatever_is_returned(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async def handler(ctx: TaskContext) -> str:
        await ctx.complete("declared")
        return "returned"

    assert (await outcome_of(harness, handler)).output == "declared"


async def test_what_is_raised_after_the_outcome_is_only_logged(
    autojump_clock: MockClock, harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(ctx: TaskContext) -> None:
        await ctx.complete("declared")
        raise ValueError("late")

    assert (await outcome_of(harness, handler)).output == "declared"
    assert answers(harness) == ["+ACK"]
    assert "raised after its outcome was stored: ValueError: late" in caplog.text


async def test_a_second_outcome_is_refused_at_the_call(
    autojump_clock: MockClock, harness: Harness
) -> None:
    refused: list[str] = []

    async def handler(ctx: TaskContext) -> None:
        await ctx.complete(1)
        with pytest.raises(OutcomeError) as error:
            await ctx.complete(2)
        refused.append(str(error.value))

    assert (await outcome_of(harness, handler)).output == 1
    assert "has ended already" in refused[0]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("boom"), ("ValueError: boom", "retriable")),
        (Fatal("no"), ("no", "non_retriable")),
        (RateLimited("429", after=2), ("429", "retry_after")),
        (ExceptionGroup("g", [ValueError("a"), Fatal("b")]), ("b", "non_retriable")),
        (SystemExit(3), ("SystemExit: 3", "retriable")),
    ],
)
async def test_what_is_raised_decides(
    autojump_clock: MockClock, harness: Harness, error: BaseException, expected: tuple[str, str]
) -> None:
    async def handler(ctx: TaskContext) -> None:
        raise error

    found = await outcome_of(harness, handler)

    assert found.kind == "failed"
    assert expected[0] in found.error
    assert found.failure_type == expected[1]
    assert answers(harness) == ["+ACK"]


async def test_a_task_error_shows_its_traceback_once(
    autojump_clock: MockClock, harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(ctx: TaskContext) -> None:
        raise ValueError("boom")

    await outcome_of(harness, handler)

    (record,) = [r for r in caplog.records if "boom" in r.getMessage()]
    assert record.exc_info
    assert record.__dict__["run_id"] == "run-1"
    assert (record.__dict__["step_id"], record.__dict__["attempt"]) == ("step", 1)


async def test_retryable_comes_back_for_the_same_attempt(
    autojump_clock: MockClock, harness: Harness
) -> None:
    seen: list[tuple[int, int]] = []

    async def handler(ctx: TaskContext) -> str:
        seen.append((ctx.attempt, ctx.deliveries))
        if len(seen) < 3:
            raise Retryable("not yet", delay=5)
        return "done"

    assert (await outcome_of(harness, handler)).output == "done"
    assert seen == [(1, 1), (1, 2), (1, 3)]
    assert answers(harness) == ['-NAK {"delay": 5000000000}'] * 2 + ["+ACK"]


async def test_retryable_ends_in_a_failure_so_that_no_run_wedges(
    autojump_clock: MockClock, harness: Harness
) -> None:
    calls = 0

    async def handler(ctx: TaskContext) -> None:
        nonlocal calls
        calls += 1
        raise Retryable("never", delay=1)

    found = await outcome_of(harness, handler)

    assert calls == 6
    assert found.failure_type == "retriable"
    assert "after 5 retries in place" in found.error


@pytest.mark.parametrize("output", [object(), {1, object()}, float("nan"), b"{not json"])
async def test_an_output_that_is_no_json_fails_for_good(
    autojump_clock: MockClock, harness: Harness, output: object
) -> None:
    async def handler(ctx: TaskContext) -> object:
        return output

    found = await outcome_of(harness, handler)

    assert (found.kind, found.failure_type) == ("failed", "non_retriable")
    assert "JSON" in found.error


async def test_an_output_over_the_limit_fails_for_good(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async def handler(ctx: TaskContext) -> str:
        return "x" * 900_000

    found = await outcome_of(harness, handler)

    assert found.failure_type == "non_retriable"
    assert "900002 bytes" in found.error


async def test_a_handler_that_swallows_its_own_timeout_goes_on(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async def handler(ctx: TaskContext) -> str:
        with trio.move_on_after(1):
            await trio.sleep_forever()
        return "went on"

    assert (await outcome_of(harness, handler)).output == "went on"


async def test_a_handler_may_complete_inside_its_own_nursery(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async def handler(ctx: TaskContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ctx.complete, "from a child")

    assert (await outcome_of(harness, handler)).output == "from a child"


async def test_continue_from_a_plain_handler_is_refused(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async def handler(ctx: TaskContext) -> object:
        return Continue(1)

    found = await outcome_of(harness, handler)

    assert found.failure_type == "non_retriable"
    assert "agent_loop" in found.error


async def test_a_plain_function_runs_in_a_thread_and_may_use_its_context(harness: Harness) -> None:
    """In real time: a virtual clock does not know that a thread is still at work."""

    def handler(ctx: TaskContext) -> str:
        trio.from_thread.run(ctx.checkpoint, {"at": 1})
        found = trio.from_thread.run(ctx.load_checkpoint)
        return found.decode() if found else "nothing"

    worker = Worker(harness.broker)
    worker.handle("t", handler)
    async with worker:
        assert (await harness.run("t", timeout=600)).output == '{"at":1}'


async def test_a_handler_in_a_thread_may_declare_an_outcome_and_stop_its_worker(
    harness: Harness,
) -> None:
    worker = Worker(harness.broker)

    @worker.handle("t")
    def handler(ctx: TaskContext) -> None:
        trio.from_thread.run(ctx.complete, "from a thread")
        worker.stop()

    async with trio.open_nursery() as nursery:
        await nursery.start(partial(worker.start, handle_signals=False))
        assert (await harness.run("t")).output == "from a thread"


class Order(BaseModel):
    """A typed input."""

    amount: int


@dataclass
class Receipt:
    """A typed output."""

    total: int


async def test_typed_input_and_output(autojump_clock: MockClock, harness: Harness) -> None:
    worker = Worker(harness.broker)

    @worker.handle_typed("t")
    async def pay(ctx: TaskContext, order: Order) -> Receipt:
        return Receipt(total=order.amount * 2)

    async with worker:
        assert (await harness.run("t", {"amount": 21})).output == {"total": 42}


@pytest.mark.parametrize("given", [{"amount": "many"}, {}, None, [1]])
async def test_bad_input_fails_for_good_and_never_reaches_the_handler(
    autojump_clock: MockClock, harness: Harness, given: object
) -> None:
    worker = Worker(harness.broker)
    called = False

    @worker.handle_typed("t")
    async def pay(ctx: TaskContext, order: Order) -> None:
        nonlocal called
        called = True

    async with worker:
        found = await harness.run("t", given)

    assert not called
    assert found.failure_type == "non_retriable"
    assert "input" in found.error
    if isinstance(given, dict):
        assert "amount" in found.error


async def test_wrong_signatures_are_refused_when_registering() -> None:
    worker = Worker("nats://localhost")

    async def no_arguments() -> None: ...
    async def untyped(ctx, order) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001
    async def no_continue(ctx: TaskContext, state: int) -> int:
        return state

    with pytest.raises(UsageError, match="no_arguments"):
        worker.handle("t", no_arguments)
    with pytest.raises(UsageError, match="annotation"):
        worker.handle_typed("t", untyped)
    with pytest.raises(UsageError, match="Continue"):
        worker.agent_loop("t", no_continue)


FOR_THE_TYPE_CHECKER = """
from functools import partial

async def function(ctx: Unknown, given: Unknown = None) -> Unknown: ...

class Kind:
    async def method(self, ctx: Unknown, given: Unknown = None) -> Unknown: ...
    async def __call__(self, ctx: Unknown, given: Unknown = None) -> Unknown: ...
"""
"""Handlers as they look where ``Unknown`` stands under ``if TYPE_CHECKING:``."""


@pytest.mark.parametrize("which", ["function", "Kind().method", "Kind()", "partial(function)"])
def test_annotations_may_be_for_the_type_checker_alone_where_none_is_read(which: str) -> None:
    later = "" if sys.version_info >= (3, 14) else "from __future__ import annotations\n"
    names: dict[str, object] = {}
    exec(later + FOR_THE_TYPE_CHECKER, names)
    handler: Handler = eval(which, names)
    worker = Worker("nats://localhost")

    worker.handle("t", handler)
    for refuses in (worker.handle_typed, worker.agent_loop):
        with pytest.raises(UsageError, match=r"'Unknown'.*for the type checker alone"):
            refuses("t", handler)


async def test_an_attempt_is_told_by_the_task(autojump_clock: MockClock, harness: Harness) -> None:
    worker = Worker(harness.broker)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> list[object]:
        return [ctx.run_id, ctx.step_id, ctx.attempt, ctx.deliveries, ctx.iteration, ctx.task_type]

    async with worker:
        found = await harness.run("t", attempt=3)

    assert found.output == ["run-1", "step", 3, 1, 0, "t"]
