"""The client and the local engine's API, on the in-memory server in virtual time."""

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import Client, Continue, Retry, TaskContext, Worker, Workflow
from trio_dagnats.client import RunStatus, SkipIf
from trio_dagnats.errors import EngineError, Missing, Refused, RunFailed, UsageError
from trio_dagnats.local import LocalEngine
from trio_dagnats.local.engine import resources
from trio_dagnats.testing import Harness, MemoryBroker, MemoryServer
from trio_dagnats.wire.names import TASK_QUEUES, WORKFLOW_HISTORY


def make_worker(broker: MemoryBroker) -> Worker:
    worker = Worker(broker)

    @worker.handle("echo")
    async def echo(ctx: TaskContext) -> bytes:
        return ctx.input

    @worker.handle("sleepy")
    async def sleepy(ctx: TaskContext) -> None:
        await trio.sleep(3600)

    @worker.handle("broken")
    async def broken(ctx: TaskContext) -> None:
        raise ValueError("boom")

    @worker.agent_loop("endless")
    async def endless(ctx: TaskContext, state: int) -> Continue[int] | int:
        return Continue(state + 1)

    return worker


async def play(harness: Harness, workflow: Workflow, given: object = None) -> object:
    """Run a workflow to its end; return its output."""
    broker = harness.broker
    async with LocalEngine(broker), Client(broker) as client, make_worker(broker):
        await client.register(workflow)
        run = await client.start(workflow.build().name, given)
        return await run.output(timeout=600)


async def test_one_last_step_gives_its_output(autojump_clock: MockClock, harness: Harness) -> None:
    workflow = Workflow("w")
    workflow.step("b", "echo", after=workflow.step("a", "echo"))

    assert await play(harness, workflow, {"x": 1}) == {"x": 1}


async def test_several_last_steps_give_an_object(
    autojump_clock: MockClock, harness: Harness
) -> None:
    workflow = Workflow("w")
    workflow.step("a", "echo")
    workflow.step("b", "echo")

    assert await play(harness, workflow, 7) == {"a": 7, "b": 7}


async def test_a_step_is_skipped_by_a_parent_s_field(
    autojump_clock: MockClock, harness: Harness
) -> None:
    workflow = Workflow("w")
    first = workflow.step("a", "echo")
    rule = SkipIf(step_id="a", field="mode", op="==", value="fast")
    workflow.step("b", "broken", after=first, skip_if=rule)

    assert await play(harness, workflow, {"mode": "fast"}) is None


async def test_a_failed_run_names_step_and_error(
    autojump_clock: MockClock, harness: Harness
) -> None:
    workflow = Workflow("w")
    workflow.step("a", "broken", retry=Retry(2, delay=1))

    with pytest.raises(RunFailed, match="step 'a': ValueError: boom"):
        await play(harness, workflow)


async def test_a_loop_ends_at_its_bound(autojump_clock: MockClock, harness: Harness) -> None:
    workflow = Workflow("w")
    workflow.agent_loop("endless", max_iterations=4)

    with pytest.raises(RunFailed, match=r"exceeded max iterations \(4\)"):
        await play(harness, workflow, 0)


async def test_a_step_timeout_fails_the_step(autojump_clock: MockClock, harness: Harness) -> None:
    workflow = Workflow("w")
    workflow.step("a", "sleepy", timeout=5)

    with pytest.raises(RunFailed, match=r"step timeout exceeded \(5s\)"):
        await play(harness, workflow)


async def test_a_run_timeout_cancels_the_run(autojump_clock: MockClock, harness: Harness) -> None:
    workflow = Workflow("w", timeout=5)
    workflow.step("a", "sleepy")

    with pytest.raises(RunFailed, match="cancelled"):
        await play(harness, workflow)


async def test_a_cancelled_run_stops_its_handler(
    autojump_clock: MockClock, harness: Harness
) -> None:
    broker = harness.broker
    workflow = Workflow("w")
    workflow.step("a", "sleepy")
    async with LocalEngine(broker), Client(broker) as client, make_worker(broker):
        await client.register(workflow)
        run = await client.start("w")
        await trio.sleep(1)
        await run.cancel()
        assert (await run.wait(timeout=10)).status is RunStatus.CANCELLED
        await run.cancel()
        await trio.sleep(1)

    assert [answer[2] for answer in harness.server.answers if answer[0] == "workers-sleepy"] == [
        "+ACK"
    ]


async def test_events_come_in_order_and_end_with_the_run(
    autojump_clock: MockClock, harness: Harness
) -> None:
    broker = harness.broker
    workflow = Workflow("w")
    workflow.step("a", "echo")
    async with LocalEngine(broker), Client(broker) as client, make_worker(broker):
        await client.register(workflow)
        run = await client.start("w")
        live = [event.type async for event in run.events()]
        again = [event.type async for event in client.run(run.id).events()]

    assert live == again
    assert live[0] == "workflow.started"
    assert live[-1] == "workflow.completed"


async def test_runs_and_workflows_are_listed(autojump_clock: MockClock, harness: Harness) -> None:
    broker = harness.broker
    async with LocalEngine(broker), Client(broker) as client, make_worker(broker):
        for name in ("one", "two"):
            workflow = Workflow(name)
            workflow.step("a", "echo")
            await client.register(workflow)
            await (await client.start(name)).wait(timeout=10)
            await trio.sleep(0.5)

        assert [found.name for found in await client.workflows()] == ["one", "two"]
        assert [found.workflow_id for found in await client.runs()] == ["one", "two"]
        assert [found.workflow_id for found in await client.runs("two")] == ["two"]
        assert await client.runs(status=RunStatus.FAILED) == []


async def test_waiting_gives_up_and_the_run_goes_on(
    autojump_clock: MockClock, harness: Harness
) -> None:
    broker = harness.broker
    workflow = Workflow("w")
    workflow.step("a", "sleepy")
    async with LocalEngine(broker), Client(broker) as client, make_worker(broker):
        await client.register(workflow)
        run = await client.start("w")
        with pytest.raises(trio.TooSlowError):
            await run.wait(timeout=5)
        assert await run.status() is RunStatus.RUNNING


async def test_an_unknown_run_is_an_error_not_a_wait_for_ever(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async with LocalEngine(harness.broker), Client(harness.broker) as client:
        with pytest.raises(EngineError, match="there is no such run"):
            await client.run("0" * 32).wait()


async def test_no_engine_says_what_to_start(autojump_clock: MockClock, harness: Harness) -> None:
    async with Client(harness.broker) as client:
        with pytest.raises(EngineError, match="dagnats serve") as caught:
            await client.start("w")
    assert not isinstance(caught.value, Refused)


async def test_an_unregistered_workflow_is_refused_by_name(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async with LocalEngine(harness.broker), Client(harness.broker) as client:
        with pytest.raises(Refused, match="'nowhere' is not registered"):
            await client.start("nowhere")


@pytest.mark.parametrize(
    ("workflow", "told"),
    [
        ({"name": "", "steps": [{"id": "a", "task": "t"}]}, "name"),
        ({"name": "w", "steps": []}, "steps"),
        ({"name": "w", "steps": [{"id": "a"}]}, "needs a task"),
        ({"name": "w", "steps": [{"id": "a", "task": "t", "timeout": "30s"}]}, "nanoseconds"),
        ({"name": "w", "steps": [{"id": "a", "task": "t", "depends_on": ["b"]}]}, "'b'"),
    ],
)
async def test_a_bad_workflow_is_refused_before_it_is_sent(
    autojump_clock: MockClock, harness: Harness, workflow: dict[str, object], told: str
) -> None:
    async with Client(harness.broker) as client:
        with pytest.raises(UsageError, match=told):
            await client.register(workflow)


async def test_what_the_local_engine_does_not_do_is_refused_by_name(
    autojump_clock: MockClock, harness: Harness
) -> None:
    definition = {
        "name": "w",
        "sticky": "soft",
        "steps": [{"id": "a", "type": "respond", "config": {}}],
    }
    async with LocalEngine(harness.broker), Client(harness.broker) as client:
        with pytest.raises(Refused, match=r"sticky, the type 'respond' \(step 'a'\); remove"):
            await client.register(definition)


async def test_a_second_engine_is_refused(autojump_clock: MockClock, harness: Harness) -> None:
    async with LocalEngine(harness.broker):
        with pytest.raises(EngineError, match="another engine"):
            async with LocalEngine(MemoryBroker(harness.server)):
                pass


async def test_without_the_buckets_of_a_split_engine_the_calls_that_need_them_say_so(
    autojump_clock: MockClock, memory_server: MemoryServer
) -> None:
    broker = MemoryBroker(memory_server)
    for spec in resources.STREAMS:
        if spec.name in {TASK_QUEUES, WORKFLOW_HISTORY}:
            await broker.ensure_stream(spec, deadline=trio.current_time() + 1)
    worker = Worker(broker)
    told: list[str] = []

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        for call in (ctx.checkpoint(1), ctx.wait_for_signal("s", timeout=1), ctx.pause(1, 1)):
            with pytest.raises(Missing) as missing:
                await call
            told.append(str(missing.value))

    async with worker:
        body = b'{"run_id":"r","step_id":"s"}'
        await broker.store("task.t.r", body, deadline=trio.current_time() + 1)
        await trio.sleep(1)

    assert len(told) == 3
    assert all("nats kv add" in text for text in told)
    assert [answer[2] for answer in memory_server.answers] == ["+ACK"]


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_durations_out_of_range_are_refused_by_name(seconds: float) -> None:
    with pytest.raises(UsageError, match="timeout must be seconds"):
        Workflow("w", timeout=seconds)


async def test_a_published_event_ends_a_wait_for_it(
    autojump_clock: MockClock, harness: Harness
) -> None:
    workflow = Workflow("w")
    workflow.wait_for_event("e", "paid", where="id", equals="input.id", timeout=100)
    async with LocalEngine(harness.broker), Client(harness.broker) as client:
        await client.register(workflow)
        run = await client.start("w", {"id": 1})
        await trio.sleep(1)
        await client.publish_event("paid", {"id": 1, "by": "card"})

        assert await run.output(timeout=10) == {"id": 1, "by": "card"}


@pytest.mark.parametrize("data", [None, b"", 7, b"not json"])
async def test_an_event_that_is_no_json_object_is_refused(
    autojump_clock: MockClock, harness: Harness, data: object
) -> None:
    async with Client(harness.broker) as client:
        with pytest.raises(UsageError, match="must be"):
            await client.publish_event("paid", data)
        with pytest.raises(UsageError, match="event name 'a b'"):
            await client.publish_event("a b", {})


async def test_an_odd_entry_hides_none_of_the_others(
    autojump_clock: MockClock, harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(harness.broker, worker_id="me")

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None: ...

    workflow = Workflow("w")
    workflow.step("s", "t")
    async with LocalEngine(harness.broker), worker, Client(harness.broker) as client:
        await client.register(workflow)
        run = await client.start("w")
        await run.wait(timeout=30)
        for bucket, key in (
            ("workflow_runs", "run.odd"),
            ("workflow_defs", "odd"),
            ("workers", "x"),
        ):
            await harness.broker.kv_put(bucket, key, b"NaN", deadline=trio.current_time() + 5)

        assert [found.run_id for found in await client.runs()] == [run.id]
        assert [found.name for found in await client.workflows()] == ["w"]
        assert [found.worker_id for found in await client.workers()] == ["me"]

    assert [r.levelname for r in caplog.records if r.name == "trio_dagnats.client"] == [
        "WARNING"
    ] * 3
