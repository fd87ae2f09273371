"""Whatever one task does, the others go on, and a task that ends its worker each time ends."""

import logging
import subprocess
import sys
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import trio
from odd_errors import ODD, TOO_ODD_FOR_A_NURSERY
from pydantic import BaseModel, model_serializer, model_validator
from trio.testing import MockClock

from trio_dagnats import Continue, TaskContext, Worker
from trio_dagnats.attempt.outcome import Completed, Settlement, bounded
from trio_dagnats.attempt.past import MAX_STARTS
from trio_dagnats.testing import Harness
from trio_dagnats.wire.text import compact
from trio_dagnats.wire.trace import TraceContext
from trio_dagnats.worker.execution import execute
from trio_dagnats.worker.telemetry import Span

Fail = Callable[[], object]
ABANDONED = Path(__file__).with_name("abandoned_process.py")


class Model(BaseModel):
    """Raises when it is read or written, if it is told to."""

    n: int
    reads: Fail | None = None

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: object) -> object:
        if failing[0] == "read":
            failing[1]()
        return value

    @model_serializer
    def _write(self) -> object:
        if failing[0] == "write":
            failing[1]()
        return {"n": self.n}


failing: tuple[str, Fail] = ("", lambda: None)


def serve_raw(worker: Worker, fail: Fail) -> None:
    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        await trio.lowlevel.checkpoint()
        fail()


def serve_child(worker: Worker, fail: Fail) -> None:
    async def child() -> None:
        fail()

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(trio.sleep, 1)


def serve_map(worker: Worker, fail: Fail) -> None:
    async def one(item: int) -> None:
        fail()

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        await ctx.map(one, range(2), limit=1)


def serve_reads(worker: Worker, fail: Fail) -> None:
    global failing  # noqa: PLW0603 - pydantic calls the model without a context
    failing = ("read", fail)

    @worker.handle_typed("t")
    async def handler(ctx: TaskContext, given: Model) -> None: ...


def serve_writes(worker: Worker, fail: Fail) -> None:
    global failing  # noqa: PLW0603 - the same
    failing = ("write", fail)

    @worker.handle_typed("t")
    async def handler(ctx: TaskContext, given: int) -> Model:
        return Model(n=1)


def serve_loop(worker: Worker, fail: Fail) -> None:
    global failing  # noqa: PLW0603 - the same
    failing = ("write", fail)

    @worker.agent_loop("t")
    async def handler(ctx: TaskContext, state: Model) -> Continue[Model] | int:
        return Continue(state)


WAYS = [serve_raw, serve_child, serve_map, serve_reads, serve_writes, serve_loop]
Serve = Callable[[Worker, Fail], None]


CASES = [
    (serve, odd)
    for serve in WAYS
    for odd in ODD
    if serve is not serve_child or odd not in TOO_ODD_FOR_A_NURSERY
]


@pytest.mark.parametrize(("serve", "odd"), CASES)
async def test_whatever_a_handler_raises_is_the_failure_of_its_own_attempt(
    autojump_clock: MockClock, harness: Harness, serve: Serve, odd: str
) -> None:
    worker = Worker(harness.broker)
    outputs: list[object] = []
    begun, over = trio.Event(), trio.Event()

    def fail() -> None:
        raise ODD[odd]()  # noqa: RSE102 - it may be a function

    serve(worker, fail)

    @worker.handle("other")
    async def other(ctx: TaskContext) -> int:
        begun.set()
        await over.wait()
        return ctx.deliveries

    async def run_other() -> None:
        outputs.append((await harness.run("other")).output)

    async with worker, trio.open_nursery() as nursery:
        nursery.start_soon(run_other)
        await begun.wait()
        assert (
            await harness.run("t", {"n": 1} if serve is not serve_writes else 1)
        ).kind == "failed"
        over.set()

    assert outputs == [1]


@pytest.mark.parametrize("odd", [odd for odd in ODD if odd != "cannot be looked at"])
async def test_whatever_a_thread_raises_is_the_failure_of_its_own_attempt(
    harness: Harness, odd: str
) -> None:
    worker = Worker(harness.broker)

    @worker.handle("t")
    def handler(ctx: TaskContext) -> None:
        raise ODD[odd]()  # noqa: RSE102 - it may be a function

    async with worker:
        assert (await harness.run("t")).kind == "failed"
        assert (await harness.run("t")).kind == "failed"


class Garbage:
    """Gives its waiter's loop what no loop knows."""

    def __await__(self) -> Generator[str, None, None]:
        yield "garbage"


@pytest.mark.parametrize("threaded", [False, True], ids=["async", "in a thread"])
async def test_what_trio_cannot_wait_for_is_the_failure_of_its_own_attempt(
    harness: Harness,
    threaded: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    worker = Worker(harness.broker)

    async def waits(ctx: TaskContext) -> None:
        await Garbage()

    def returns(ctx: TaskContext) -> Garbage:
        return Garbage()

    worker.handle("t", returns if threaded else waits)
    async with worker:
        assert "garbage" in (await harness.run("t")).error
        assert (await harness.run("t")).kind == "failed"


async def test_an_attempt_whose_line_cannot_be_logged_fails_and_the_next_one_runs(
    autojump_clock: MockClock, harness: Harness
) -> None:
    def refuse(*_: object) -> logging.LogRecord:
        raise KeyboardInterrupt

    worker, factory = Worker(harness.broker), logging.getLogRecordFactory()

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        raise ValueError("no")

    async with worker:
        logging.setLogRecordFactory(refuse)
        try:
            for _ in range(2):
                assert (await harness.run("t")).error == "ValueError: no"
        finally:
            logging.setLogRecordFactory(factory)


class Bad:
    """Telemetry with a fault in one of its parts."""

    def __init__(self, part: str) -> None:
        self._part = part

    def _touch(self, part: str) -> None:
        if part == self._part:
            raise KeyboardInterrupt

    def span(self, name: str, parent: TraceContext, attributes: object) -> Span:
        self._touch("span")
        return self

    def end(self) -> None:
        self._touch("end")

    def trace(self) -> TraceContext:
        self._touch("trace")
        return None  # type: ignore[return-value]  # a fault, too

    def record_error(self, error: BaseException) -> None:
        self._touch("record_error")

    def count(self, name: str, change: int) -> None:
        self._touch("count")

    def record(self, name: str, value: float) -> None:
        self._touch("record")


@pytest.mark.parametrize("part", ["span", "end", "trace", "record_error", "count", "record"])
async def test_telemetry_that_fails_changes_nothing(
    autojump_clock: MockClock, harness: Harness, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    worker = Worker(harness.broker, Bad(part))

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> int:
        if ctx.input == b"0":
            raise ValueError("no")
        return 1

    async with worker:
        assert (await harness.run("t", 0)).error == "ValueError: no"
        assert (await harness.run("t", 1)).output == 1

    assert "telemetry failed: KeyboardInterrupt" in caplog.text


def faulty(outcome: Settlement, max_payload: int) -> Settlement:
    """Stand for a fault of the worker's own, after the handler of one task."""
    if outcome == Completed(b'"bad"'):
        raise RuntimeError("a fault")
    return bounded(outcome, max_payload)


async def put(harness: Harness, run_id: str) -> None:
    body = compact({"run_id": run_id, "step_id": "s"})
    await harness.broker.store(f"task.t.{run_id}", body, deadline=trio.current_time() + 10)


async def test_a_task_by_which_a_worker_ends_with_an_error_is_not_let_go(
    autojump_clock: MockClock, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is handed back as the others are, but its start counts; theirs do not."""
    starts = {"bad": 0, "good": 0}

    def make_worker() -> Worker:
        worker = Worker(harness.broker, grace=0)

        @worker.handle("t")
        async def handler(ctx: TaskContext) -> str:
            starts[ctx.run_id] += 1
            if ctx.run_id == "good":
                await trio.sleep_forever()
            await trio.sleep(1)
            return "bad"

        return worker

    monkeypatch.setattr(execute, "bounded", faulty)
    await put(harness, "good")
    await put(harness, "bad")
    for _ in range(MAX_STARTS):
        with pytest.raises(RuntimeError, match="a fault") as caught:
            await make_worker().start(handle_signals=False)
        assert caught.value.__notes__ == ["in bad.s attempt 1 of 't'"]
    ended = trio.Event()

    def hear(message: object) -> None:
        if b"without getting further" in bytes(getattr(message, "body", b"")):
            ended.set()

    async with harness.broker.listen("history.bad", hear), make_worker():
        with trio.fail_after(10):
            await ended.wait()

    assert starts == {"bad": MAX_STARTS, "good": MAX_STARTS + 1}


def test_a_coroutine_that_is_closed_waits_for_nothing_any_more() -> None:
    """All that is heard is trio's own scope, which misses its run."""
    done = subprocess.run(
        [sys.executable, str(ABANDONED)], capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout == "must be called from async context, by current_task, left: False\n"
