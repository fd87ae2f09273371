"""Tasks that no subject, key or id can name: their engine is told, or they are kept."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import Client, Continue, Retryable, TaskContext, Worker
from trio_dagnats.testing import Harness
from trio_dagnats.transport.port import Message

INJECTION = "x 0\r\n\r\nPUB pwned 5\r\nhello\r\nPUB x"
ODD = [INJECTION, "a b", "a\tb", "a..b", ".a", "a.", "*", "a.>", "a\ud800", "a" * 1501]
SPOKEN = [*ODD[:8], "my step", "a>b", "\u00e4 \u00f6", "\x1b[31m", "a" * 1001 + " b"]
"""What the DagNats engine takes as the id of a step."""


def task(run_id: str, step_id: str, **more: object) -> bytes:
    return json.dumps({"run_id": run_id, "step_id": step_id, **more}).encode()


async def put(harness: Harness, body: bytes) -> None:
    await harness.broker.store("task.t.x", body, deadline=trio.current_time() + 10)


def make_worker(harness: Harness) -> Worker:
    worker = Worker(harness.broker)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        await ctx.pause(0.1)  # which reads what the workflow says of the step
        await ctx.checkpoint("there")

    return worker


def answers(harness: Harness) -> list[str]:
    return [answer.body for answer in harness.server.answers]


def letters(harness: Harness) -> list[bytes]:
    found = harness.server.stream("DEAD_LETTERS").read("dead.>", harness.broker.time_ns())
    return [letter.body for letter in found]


@pytest.mark.parametrize("run_id", ODD)
async def test_a_task_of_a_run_that_cannot_be_told_is_kept(
    autojump_clock: MockClock, harness: Harness, run_id: str
) -> None:
    body = task(run_id, "s")
    await put(harness, body)

    async with make_worker(harness):
        assert (await harness.run("t")).kind == "completed"

    assert answers(harness) == ["+TERM", "+ACK"]
    assert letters(harness) == [body]


def told(heard: list[Message | None]) -> list[dict[str, Any]]:
    return [json.loads(message.body) for message in heard if message is not None]


@pytest.mark.parametrize("step_id", [*SPOKEN, "\ue000"])
async def test_a_step_is_called_what_its_engine_likes(
    autojump_clock: MockClock, harness: Harness, step_id: str
) -> None:
    """Its id is text in events; only where it becomes a key or a subject it has to be one."""
    heard: list[Message | None] = []
    worker = Worker(harness.broker)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> str:
        if ctx.deliveries == 1:
            raise Retryable("once more", delay=0.1)
        await ctx.wait_for_signal("go")
        return ctx.step_id

    async with (
        harness.broker.listen("history.r", heard.append),
        worker,
        Client(harness.broker) as c,
    ):
        await put(harness, task("r", step_id))
        await c.run("r").signal("go")
        await trio.sleep(5)

    events = told(heard)
    assert [event["type"] for event in events] == ["step.started"] * 2 + ["step.completed"]
    assert {event["step_id"] for event in events} == {step_id}
    assert events[-1]["payload"] == step_id
    assert all(m is not None and m.headers["Nats-Msg-Id"].isprintable() for m in heard)
    assert [answer.partition(" ")[0] for answer in answers(harness)] == ["-NAK", "+ACK"]


async def keeps_a_checkpoint(ctx: TaskContext) -> None:
    await ctx.checkpoint("there")


async def pauses(ctx: TaskContext) -> None:
    await ctx.pause(0.1)


async def maps(ctx: TaskContext) -> None:
    async def same(item: int) -> int:
        return item

    await ctx.map(same, [1, 2])


async def streams(ctx: TaskContext) -> None:
    await ctx.put_stream("there")


async def continues(ctx: TaskContext, state: int) -> Continue[int] | int:
    return Continue(state + 1)


@pytest.mark.parametrize("step_id", SPOKEN)
@pytest.mark.parametrize("power", [keeps_a_checkpoint, pauses, maps, streams, continues])
async def test_what_needs_a_key_fails_for_good_in_a_step_that_is_none(
    autojump_clock: MockClock,
    harness: Harness,
    power: Callable[..., Awaitable[object]],
    step_id: str,
) -> None:
    heard: list[Message | None] = []
    worker = Worker(harness.broker)
    register = worker.agent_loop if power is continues else worker.handle
    register("t", power)
    async with harness.broker.listen("history.r", heard.append), worker:
        await put(harness, task("r", step_id, input=0))
        await trio.sleep(5)

    failed = told(heard)[-1]
    assert (failed["type"], failed["step_id"]) == ("step.failed", step_id)
    assert failed["payload"]["failure_type"] == "non_retriable"
    assert "cannot be part of a key" in failed["payload"]["error"]
    assert answers(harness) == ["+ACK"]


@pytest.mark.parametrize(
    "body",
    [
        task("r", "a\ud800"),
        task("r", "a" * 1501),
        task("r", "s")[:-1] + b',"iteration":%b}' % (b"9" * 4200),
        task("r", "s")[:-1] + b',"iteration":%b}' % (b"9" * 4400),
        task("r", "s")[:-1] + b',"attempt":%b}' % (b"9" * 4200),
    ],
)
async def test_what_no_task_can_have_fails_its_step_by_its_name(
    autojump_clock: MockClock, harness: Harness, body: bytes
) -> None:
    """The engine that has dispatched it waits for it."""
    heard: list[Message | None] = []
    async with harness.broker.listen("history.r", heard.append), make_worker(harness):
        await put(harness, body)
        assert (await harness.run("t")).kind == "completed"

    (event,) = told(heard)
    assert event["type"] == "step.failed"
    assert body.startswith(task("r", event["step_id"])[:-1])
    assert event["payload"]["failure_type"] == "non_retriable"
    assert answers(harness) == ["+ACK", "+ACK"]


async def test_a_step_whose_failure_would_end_its_engine_is_kept(
    autojump_clock: MockClock, harness: Harness
) -> None:
    """The engine's own dead letter of it would go to a subject that no server takes."""
    body = task("r", "a" * 5000)
    await put(harness, body)

    async with make_worker(harness):
        assert (await harness.run("t")).kind == "completed"

    assert answers(harness) == ["+TERM", "+ACK"]
    assert letters(harness) == [body]


@pytest.mark.parametrize("workflow", ODD)
async def test_a_workflow_that_no_key_can_name_is_no_trouble(
    autojump_clock: MockClock, harness: Harness, workflow: str
) -> None:
    """Nothing is registered under it, so its steps have no bounds that could be read."""
    heard: list[Message | None] = []
    async with harness.broker.listen("history.r", heard.append), make_worker(harness):
        await put(harness, task("r", "s", workflow_name=workflow))
        await harness.run("t")

    events = [json.loads(message.body) for message in heard if message is not None]
    assert [event["type"] for event in events] == ["step.started", "step.completed"]


async def test_what_cannot_be_kept_is_handed_back_until_it_can(
    autojump_clock: MockClock, harness: Harness
) -> None:
    body = task(INJECTION, "s")
    await put(harness, body)
    stream = harness.server.streams.pop("DEAD_LETTERS")

    async with make_worker(harness):
        await trio.sleep(1)
        assert [answer.partition(" ")[0] for answer in answers(harness)] == ["-NAK"]
        harness.server.streams["DEAD_LETTERS"] = stream
        await trio.sleep(30)

    assert answers(harness)[-1] == "+TERM"
    assert letters(harness) == [body]


async def test_a_message_as_large_as_the_server_takes_is_kept_but_for_its_end(
    autojump_clock: MockClock, harness: Harness
) -> None:
    body = b"x" * harness.broker.max_payload
    await put(harness, body)

    async with make_worker(harness):
        await trio.sleep(1)

    assert answers(harness) == ["+TERM"]
    (letter,) = letters(harness)
    assert body.startswith(letter)
    assert len(letter) > 1_000_000
