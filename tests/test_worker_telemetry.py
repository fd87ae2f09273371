"""The seam for spans and counters: called where the Go worker has them (contract 11)."""

import pytest
from trio.testing import MockClock

from trio_dagnats import Fatal, RateLimited, TaskContext, Worker
from trio_dagnats.telemetry import Attributes, Span, TraceContext
from trio_dagnats.testing import Harness


class Recorder:
    """Keeps everything; is its own span."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Attributes]] = []
        self.open: list[str] = []
        self.errors: list[str] = []
        self.counts: list[tuple[str, int]] = []
        self.values: list[str] = []

    def span(self, name: str, parent: TraceContext, attributes: Attributes) -> Span:
        self.spans.append((name, attributes))
        self.open.append(name)
        return self

    def end(self) -> None:
        self.open.pop()

    def trace(self) -> TraceContext:
        return TraceContext(traceparent="00-ours")

    def record_error(self, error: BaseException) -> None:
        self.errors.append(str(error))

    def count(self, name: str, change: int) -> None:
        self.counts.append((name, change))

    def record(self, name: str, value: float) -> None:
        self.values.append(name)


async def run(harness: Harness, error: Exception | None) -> Recorder:
    recorder = Recorder()
    worker = Worker(harness.broker, recorder)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> str:
        if error is not None:
            raise error
        return "x"

    async with worker:
        await harness.run("t")
    return recorder


async def test_a_completed_task_has_its_spans_and_counters(
    autojump_clock: MockClock, harness: Harness
) -> None:
    found = await run(harness, None)

    assert found.spans == [
        ("executeTask t", {"run_id": "run-1", "step_id": "step", "task_name": "t"}),
        ("worker.complete", {"run_id": "run-1", "step_id": "step", "output_size_bytes": 3}),
    ]
    assert found.counts == [("worker.tasks.active", 1), ("worker.tasks.active", -1)]
    assert found.values == ["step.duration_ms"]
    assert not found.errors
    assert not found.open


@pytest.mark.parametrize(
    ("error", "name", "retries"),
    [
        (ValueError("boom"), "worker.fail", 1),
        (Fatal("boom"), "worker.failPermanent", 0),
        (RateLimited("boom", after=1), "worker.failRetryAfter", 0),
    ],
)
async def test_a_failed_task_has_the_span_of_its_kind(
    autojump_clock: MockClock, harness: Harness, error: Exception, name: str, retries: int
) -> None:
    found = await run(harness, error)

    assert [span for span, _ in found.spans] == ["executeTask t", name]
    assert all("boom" in text for text in found.errors)
    assert len(found.errors) == 2
    assert found.counts.count(("step.retries", 1)) == retries
    assert not found.open


async def test_the_events_carry_the_trace_of_the_task_s_span(
    autojump_clock: MockClock, harness: Harness
) -> None:
    await run(harness, None)

    records = harness.server.stream("WORKFLOW_HISTORY").read("history.>", harness.broker.time_ns())
    done = [record for record in records if b"step.completed" in record.body]
    assert [record.headers["traceparent"] for record in done] == ["00-ours"]
