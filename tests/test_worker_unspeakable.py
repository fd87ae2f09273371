"""Tasks that no subject, key or id can name: their engine is told, or they are kept."""

import json

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import TaskContext, Worker
from trio_dagnats.testing import Harness
from trio_dagnats.transport.port import Message

INJECTION = "x 0\r\n\r\nPUB pwned 5\r\nhello\r\nPUB x"
ODD = [INJECTION, "a b", "a\tb", "a..b", ".a", "a.", "*", "a.>", "a\ud800", "a" * 1501]


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


@pytest.mark.parametrize("step_id", ODD[:-1])
async def test_a_step_that_no_key_can_name_fails_by_its_name(
    autojump_clock: MockClock, harness: Harness, step_id: str
) -> None:
    """The engine that has dispatched it waits for it, whatever it is called."""
    heard: list[Message | None] = []
    async with harness.broker.listen("history.r", heard.append), make_worker(harness):
        await put(harness, task("r", step_id))
        assert (await harness.run("t")).kind == "completed"

    (message,) = heard
    assert message is not None
    event = json.loads(message.body)
    assert (event["type"], event["step_id"]) == ("step.failed", step_id)
    assert event["payload"]["failure_type"] == "non_retriable"
    assert "step_id" in event["payload"]["error"]
    assert message.headers["Nats-Msg-Id"].isprintable()
    assert answers(harness) == ["+ACK", "+ACK"]


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
