"""Messages that no engine or worker writes: the local engine leaves them out and goes on."""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import Client, TaskContext, Worker, Workflow
from trio_dagnats.errors import Refused
from trio_dagnats.local import LocalEngine
from trio_dagnats.testing import Harness
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.names import BUCKET_DEFS, BUCKET_RUNS, run_key
from trio_dagnats.wire.text import rfc3339

DEEP = b"[" * 10_000
CONTINUE = b'{"type":"step.continue","run_id":"%b","step_id":"work"}'
COMPLETED = b'{"type":"step.completed","run_id":"%b","step_id":"work.map.\xc2\xb2"}'

NAN_INPUT = b'{"run_id":"s","workflow_id":"work","run_at":"2026-01-01T00:00:00Z","input":NaN}'


async def store(broker: Broker, subject: str, body: bytes, msg_id: str = "") -> None:
    await broker.store(subject, body, msg_id=msg_id, deadline=trio.current_time() + 5)


async def schedule(broker: Broker, entry: bytes) -> None:
    """Let a run begin whose record in the bucket is another than its message says."""
    told = b'{"run_id":"s","workflow_id":"work","run_at":"%b"}' % rfc3339(broker.time_ns()).encode()
    await broker.kv_put("scheduled_runs", "s", entry, deadline=trio.current_time() + 5)
    await store(broker, "scheduled.s", told)


@pytest.mark.parametrize(
    ("subject", "body", "msg_id"),
    [
        ("sleep.{run}.work", b'{"run_id":"%b","duration_ms":1e999}', ""),
        ("sleep.{run}.work", b'{"run_id":"%b","duration_ms":' + b"9" * 400 + b"}", ""),
        ("sleep.{run}.work", DEEP, ""),
        ("event.go", DEEP, ""),
        ("event.go", b'{"id":NaN}', ""),
        ("event.go", b"", ""),
        ("history.{run}", DEEP, ""),
        ("history.{run}", COMPLETED, ""),
        ("scheduled.s", b"no record", ""),
        ("scheduled.s", NAN_INPUT, ""),
    ],
)
async def test_an_odd_message_is_left_out(
    autojump_clock: MockClock, harness: Harness, subject: str, body: bytes, msg_id: str
) -> None:
    """A run goes on that stands at a step, and then waits for an event."""
    worker = Worker(harness.broker)

    @worker.handle("work")
    async def work(ctx: TaskContext) -> int:
        run_id = ctx.run_id
        if subject.startswith("scheduled."):
            await schedule(harness.broker, body)
        else:
            odd = body.replace(b"%b", run_id.encode())
            await store(harness.broker, subject.format(run=run_id), odd, msg_id.format(run=run_id))
        await trio.sleep(1)
        return 1

    workflow = Workflow("work")
    first = workflow.step("work", "work")
    workflow.wait_for_event("wait", "go", where="id", equals="input.id", timeout=60, after=first)
    async with LocalEngine(harness.broker), worker, Client(harness.broker) as client:
        await client.register(workflow)
        run = await client.start("work", {"id": 5})
        await trio.sleep(10)
        await store(harness.broker, "event.go", body if subject == "event.go" else b"{}")
        await store(harness.broker, "event.go", b'{"id":5}')
        await trio.sleep(1)
        ended = await run.wait(timeout=30)

    assert ended.status == "completed"


@pytest.mark.parametrize("iteration", ["", "0.1", "\u00b2", "9" * 5000])
async def test_a_step_that_is_no_loop_and_continues_fails(
    autojump_clock: MockClock, harness: Harness, iteration: str
) -> None:
    """Its task is answered, so its run would wait for ever."""
    worker = Worker(harness.broker)

    @worker.handle("work")
    async def work(ctx: TaskContext) -> None:
        if not iteration:
            await ctx.continue_({"page": 2})
            return
        body = CONTINUE.replace(b"%b", ctx.run_id.encode())
        msg_id = f"{ctx.run_id}.work.continue.{iteration}"
        await store(harness.broker, f"history.{ctx.run_id}", body, msg_id)
        await trio.sleep(60)

    workflow = Workflow("work")
    workflow.step("work", "work")
    async with LocalEngine(harness.broker), worker, Client(harness.broker) as client:
        await client.register(workflow)
        ended = await (await client.start("work")).wait(timeout=30)
        step_id, error = ended.failed_step()

    assert (step_id, "is no agent loop" in error) == ("work", True)


def odd_runs() -> dict[str, Callable[[dict[str, Any]], None]]:
    """Return what can be wrong with a stored run that still reads as one."""

    def lacks_a_step(run: dict[str, Any]) -> None:
        del run["steps"]["third"]

    def has_an_output_that_is_none(run: dict[str, Any]) -> None:
        run["steps"]["first"]["output"] = "!"

    def knows_another_workflow(run: dict[str, Any]) -> None:
        run["local_engine"]["definition"]["steps"] = [{"id": "other", "task": "t"}]

    found = (lacks_a_step, has_an_output_that_is_none, knows_another_workflow)
    return {change.__name__: change for change in found}


@pytest.mark.parametrize("change", odd_runs().values(), ids=odd_runs())
async def test_a_run_that_cannot_be_carried_on_fails_alone(
    autojump_clock: MockClock, harness: Harness, change: Callable[[dict[str, Any]], None]
) -> None:
    worker = Worker(harness.broker)
    waits = trio.Event()

    @worker.handle("work")
    async def work(ctx: TaskContext) -> int:
        if ctx.step_id == "second" and not waits.is_set():
            waits.set()
            await ctx.wait_for_signal("go")
        return 1

    workflow = Workflow("work")
    first = workflow.step("first", "work")
    second = workflow.step("second", "work", after=first)
    workflow.step("third", "work", after=[first, second])
    async with worker, Client(harness.broker) as client:
        async with LocalEngine(harness.broker):
            await client.register(workflow)
            odd = await client.start("work")
            await waits.wait()
        entry = await harness.broker.kv_get(BUCKET_RUNS, run_key(odd.id), deadline=deadline_in())
        assert entry is not None
        run = json.loads(entry.value)
        change(run)
        body = json.dumps(run).encode()
        await harness.broker.kv_put(BUCKET_RUNS, run_key(odd.id), body, deadline=deadline_in())
        async with LocalEngine(harness.broker):
            await odd.signal("go")
            assert (await (await client.start("work")).wait(timeout=60)).status == "completed"
            assert (await odd.wait(timeout=60)).status == "failed"


@pytest.mark.parametrize(
    "schema",
    [
        {"type": ["string", "null"]},
        {"type": {"a": 1}},
        {"properties": {"a": {"type": ["null"]}}},
        {"required": [["a"]]},
    ],
)
async def test_a_schema_that_no_input_fits_is_refused_and_ends_no_engine(
    autojump_clock: MockClock, harness: Harness, schema: dict[str, object]
) -> None:
    """Not the one that is asked, nor the next one that finds it on the server."""
    definition = {"name": "odd", "steps": [{"id": "s", "task": "t"}], "input_schema": schema}
    body = json.dumps(definition).encode()
    started = (
        b'{"type":"workflow.started","run_id":"r","payload":{"workflow_def":%b,"input":{"a":1}}}'
    )
    workflow = Workflow("nap")
    workflow.sleep("nap", 0.01)
    async with Client(harness.broker) as client:
        for _ in range(2):
            async with LocalEngine(harness.broker):
                with pytest.raises(Refused):
                    await client.register(definition)
                await harness.broker.kv_put(BUCKET_DEFS, "odd", body, deadline=deadline_in())
                with suppress(Refused):
                    await client.start("odd", {"a": 1})
                await store(harness.broker, "history.r", started.replace(b"%b", body))
                await client.register(workflow)
                assert (await (await client.start("nap")).wait(timeout=30)).status == "completed"
        assert (await client.run("r").wait(timeout=30)).status == "failed"
