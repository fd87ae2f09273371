"""Odd entries in an engine's buckets: each is left out and mentioned, and hides no other."""

import json
import time
from io import StringIO

import pytest
from rich.console import Console
from trio.testing import MockClock

from trio_dagnats import Client, TaskContext, Worker, Workflow
from trio_dagnats.cli.output import documents, render
from trio_dagnats.client.timeline import timeline
from trio_dagnats.errors import WireError
from trio_dagnats.local import LocalEngine
from trio_dagnats.testing import Harness
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.wire.run import WorkflowRun
from trio_dagnats.wire.text import parse_rfc3339

YEARS = [
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-23:59",
    "10000-01-01T00:00:00Z",
    "",
]


def a_run(run_id: str, created_at: str = "2999-01-01T00:00:00Z") -> bytes:
    steps = {"nap": {"status": "completed", "attempts": 1}}
    run = {"run_id": run_id, "workflow_id": "nap", "status": "completed", "steps": steps}
    return json.dumps({**run, "created_at": created_at, "completed_at": created_at}).encode()


ODD = [
    ("workers", "odd", b"{}"),
    ("workers", "odd", b"\xff"),
    ("workers", "odd", b'{"worker_id":"w","task_types":["t"],"pid":1e400}'),
    ("workflow_runs", "run.odd", b"{}"),
    ("workflow_runs", "run.odd", b"[" * 5000),
    ("workflow_runs", "run.odd", a_run("a b")),
    ("workflow_runs", "run.odd", a_run("other")),
    ("workflow_defs", "odd", b"{}"),
    ("workflow_defs", "odd", b"null"),
    ("workflow_defs", "odd", b'{"name":"odd","steps":[{"id":"a","task":"t","depends_on":["b"]}]}'),
]


@pytest.mark.parametrize(("bucket", "key", "value"), ODD)
async def test_an_odd_entry_hides_no_other(
    autojump_clock: MockClock,
    harness: Harness,
    caplog: pytest.LogCaptureFixture,
    bucket: str,
    key: str,
    value: bytes,
) -> None:
    """In what ``runs``, ``show last``, ``workers``, ``ps``, ``dev`` and ``start`` read."""
    worker = Worker(harness.broker, worker_id="me")

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None: ...

    workflow = Workflow("nap")
    workflow.sleep("nap", 0.01)
    async with LocalEngine(harness.broker), worker, Client(harness.broker) as client:
        definition = await client.register(workflow)
        await harness.broker.kv_put(bucket, key, value, deadline=deadline_in())
        run = await client.start("nap")
        await run.wait(timeout=30)

        assert [found.run_id for found in await client.runs()] == [run.id]
        assert [found.name for found in await client.workflows()] == ["nap"]
        assert [found.worker_id for found in await client.workers()] == ["me"]
        assert [found.worker_id for found in await client.attempts(timeout=1)] == ["me"]
        assert await client.unserved(definition) == []
    assert repr(key) in caplog.text


@pytest.mark.parametrize("created_at", YEARS)
def test_a_run_of_any_year_is_shown(created_at: str) -> None:
    run = WorkflowRun.read(a_run("r", created_at))
    found = timeline(run, [])
    console = Console(file=StringIO())

    console.print(render.runs_table([run], time.time_ns(), whole_ids=True))
    console.print(render.run_tree(found, time.time_ns()))
    assert json.dumps(documents.of_run(run))
    assert json.dumps(documents.of_timeline(found))


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+00:01"])
def test_a_time_outside_of_the_calendar_is_none(text: str) -> None:
    with pytest.raises(WireError, match="RFC 3339"):
        parse_rfc3339(text)
