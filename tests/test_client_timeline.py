"""A run's timeline: from events alone by enumeration, and of real runs in virtual time."""

import json

import trio
from trio.testing import MockClock

from trio_dagnats import Client, Continue, Retry, TaskContext, Worker, Workflow
from trio_dagnats.client import AttemptEnd, Chunk, StepStatus
from trio_dagnats.client.timeline import timeline
from trio_dagnats.local import LocalEngine
from trio_dagnats.testing import Harness, MemoryBroker
from trio_dagnats.wire.events import HistoryEvent
from trio_dagnats.wire.run import RunStatus, StepState, WorkflowRun

SECOND = 1_000_000_000


def event(kind: str, at: int, step_id: str = "a", **more: object) -> HistoryEvent:
    payload = json.dumps(more["payload"]).encode() if "payload" in more else b""
    number = more.get("number")
    return HistoryEvent(
        type=kind,
        run_id="r",
        step_id=step_id,
        timestamp_ns=at * SECOND,
        payload=payload,
        worker_id="w",
        attempt_number=number if isinstance(number, int) else None,
    )


def run(status: RunStatus, step: StepStatus, *steps: str) -> WorkflowRun:
    ended = "" if status is RunStatus.RUNNING else "1970-01-01T00:00:09Z"
    return WorkflowRun(
        run_id="r",
        workflow_id="w",
        status=status,
        steps={name: StepState(status=step) for name in steps or ("a",)},
        created_at="1970-01-01T00:00:01Z",
        completed_at=ended,
    )


def test_a_retry_is_two_attempts_with_their_own_times() -> None:
    found = timeline(
        run(RunStatus.COMPLETED, StepStatus.COMPLETED),
        [
            event("step.queued", 1),
            event("step.started", 2, number=1),
            event("step.failed", 3, payload={"error": "boom"}),
            event("step.started", 5, number=2),
            event("step.completed", 8, number=2),
        ],
    )

    first, second = found.steps[0].attempts
    assert (first.number, first.end, first.error) == (1, AttemptEnd.FAILED, "boom")
    assert (second.number, second.end, second.error) == (2, AttemptEnd.COMPLETED, "")
    assert (first.started_ns, first.ended_ns) == (2 * SECOND, 3 * SECOND)
    assert (found.steps[0].begun_ns, found.steps[0].ended_ns) == (SECOND, 8 * SECOND)


def test_a_redelivery_is_the_same_attempt_started_again() -> None:
    events = [event("step.started", 2, number=1), event("step.started", 4, number=1)]
    found = timeline(run(RunStatus.RUNNING, StepStatus.RUNNING), events)

    (only,) = found.steps[0].attempts
    assert (only.starts, only.started_ns, only.end) == (2, 2 * SECOND, AttemptEnd.RUNNING)
    assert found.steps[0].ended_ns is None


def test_an_attempt_that_the_end_of_the_run_cut_off_is_unfinished() -> None:
    events = [event("step.started", 2, number=1), event("workflow.cancelled", 9, "")]
    found = timeline(run(RunStatus.CANCELLED, StepStatus.CANCELLED), events)

    (only,) = found.steps[0].attempts
    assert (only.end, only.ended_ns) == (AttemptEnd.UNFINISHED, 9 * SECOND)


def test_an_outcome_whose_start_was_dropped_is_an_attempt_all_the_same() -> None:
    events = [event("step.continue", 3), event("step.completed", 4)]
    found = timeline(run(RunStatus.COMPLETED, StepStatus.COMPLETED), events)

    ends = [attempt.end for attempt in found.steps[0].attempts]
    assert ends == [AttemptEnd.CONTINUED, AttemptEnd.COMPLETED]


def test_a_failure_may_be_a_bare_string() -> None:
    events = [event("step.started", 2), event("step.failed", 3, payload="no")]
    found = timeline(run(RunStatus.FAILED, StepStatus.FAILED), events)

    assert found.steps[0].attempts[0].error == "no"


def test_instances_belong_to_their_map_and_steps_keep_the_order_of_the_definition() -> None:
    steps = [{"id": "z", "type": "normal", "task": "t"}, {"id": "a", "type": "map", "task": "m"}]
    found = timeline(
        run(RunStatus.RUNNING, StepStatus.RUNNING, "a", "b", "z"),
        [
            event("workflow.started", 1, "", payload={"workflow_def": {"steps": steps}}),
            event("step.started", 2, "a.map.0"),
            event("step.started", 2, "a.map.1"),
            event("step.completed", 3, "a.map.1"),
        ],
    )

    assert [(step.id, step.type) for step in found.steps] == [
        ("z", "normal"),
        ("a", "map"),
        ("b", ""),
    ]
    ends = {attempt.step_id: attempt.end for attempt in found.steps[1].attempts}
    assert ends == {"a.map.0": AttemptEnd.RUNNING, "a.map.1": AttemptEnd.COMPLETED}


def make_worker(broker: MemoryBroker) -> Worker:
    worker = Worker(broker)

    @worker.handle("flaky")
    async def flaky(ctx: TaskContext) -> str:
        await ctx.put_stream("hello")
        await trio.sleep(2)
        if ctx.attempt == 1:
            raise ValueError("boom")
        return "done"

    @worker.agent_loop("loop")
    async def loop(ctx: TaskContext, state: int) -> Continue[int] | int:
        await trio.sleep(1)
        return Continue(state + 1) if state < 2 else state

    return worker


async def test_the_timeline_of_a_real_run(autojump_clock: MockClock, harness: Harness) -> None:
    broker = harness.broker
    workflow = Workflow("w")
    workflow.step("flaky", retry=Retry(2, delay=5))
    workflow.agent_loop("loop", max_iterations=5)
    async with LocalEngine(broker), Client(broker) as client, make_worker(broker):
        await client.register(workflow)
        run = await client.start("w", 0)
        await run.wait(timeout=60)
        found = await run.timeline()

        assert found is not None
        flaky, loop = found.steps
        assert [a.end for a in flaky.attempts] == [AttemptEnd.FAILED, AttemptEnd.COMPLETED]
        assert [a.end for a in loop.attempts] == [AttemptEnd.CONTINUED] * 2 + [AttemptEnd.COMPLETED]
        assert flaky.type == "normal"
        assert await client.find(run.id[:6]) == [run.id]
        assert await client.find("0" * 32) == []


async def test_chunks_name_their_step_and_events_of_all_runs_are_heard(
    autojump_clock: MockClock, harness: Harness
) -> None:
    broker = harness.broker
    workflow = Workflow("w")
    workflow.step("flaky")
    async with LocalEngine(broker), Client(broker) as client, client.watch() as heard:
        await client.register(workflow)
        run = await client.start("w")
        async with run.chunks() as chunks, make_worker(broker):
            assert await chunks.receive() == Chunk("flaky", b"hello")
        assert (await heard.receive()).type == "workflow.started"


async def test_a_worker_can_be_moved_to_another_server(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker("nats://nobody:1")

    @worker.handle("hello")
    async def hello(ctx: TaskContext) -> str:
        return "moved"

    worker.move_to(harness.broker)
    async with worker:
        assert (await harness.run("hello")).output == "moved"
