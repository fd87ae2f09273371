"""Messages that no engine or worker writes: the local engine leaves them out and goes on."""

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import Client, TaskContext, Worker, Workflow
from trio_dagnats.local import LocalEngine
from trio_dagnats.testing import Harness
from trio_dagnats.transport.port import Broker
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
        ("history.{run}", CONTINUE, "{run}.work.continue.\u00b2"),
        ("history.{run}", CONTINUE, "{run}.work.continue." + "9" * 5000),
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
