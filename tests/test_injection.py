"""A name that holds lines of the protocol: nobody carries them out, on a real server."""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
import trio

from trio_dagnats import Client, TaskContext, Worker, Workflow
from trio_dagnats.errors import UsageError
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import Broker, Message, StreamSpec
from trio_dagnats.wire.micro import ENDPOINT, Verb, verb_subject

INJECTION = "x 0\r\n\r\nPUB pwned 5\r\nhello\r\nPUB $JS.API.STREAM.DELETE.VICTIM 0\r\n\r\nPUB x"
PATIENCE = 20.0
TOMORROW = datetime.now(UTC) + timedelta(days=1)

Call = Callable[[Client], Awaitable[object]]
CALLS: dict[str, Call] = {
    "start": lambda client: client.start(INJECTION),
    "start-with-key": lambda client: client.start(INJECTION, idempotency_key="k"),
    "schedule": lambda client: client.schedule(INJECTION, at=TOMORROW),
    "event": lambda client: client.publish_event(INJECTION, {}),
    "signal": lambda client: client.run("r").signal(INJECTION),
    "approve": lambda client: client.run("r").approve(INJECTION),
    "find": lambda client: client.find(INJECTION),
    "attempts": lambda client: client.attempts(INJECTION),
}
WORKFLOW = {"name": "w", "steps": [{"id": "s", "task": "t"}]}
BAD_STEP = {"name": "w", "steps": [{"id": INJECTION, "task": "t"}]}
BAD_TASK = {"name": "w", "steps": [{"id": "s", "task": INJECTION}]}
BAD_GROUP = {"name": "w", "steps": [{"id": "s", "task": "t", "worker_group": INJECTION}]}
BAD_APPROVAL = {
    "name": "w",
    "steps": [{"id": "s", "type": "approval", "config": {"subject": "a\0b", "timeout": 10**9}}],
}


class Ear:
    """Listens on ``pwned``, and says what came there before a word of its own."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._heard: list[bytes] = []
        self._lot = trio.lowlevel.ParkingLot()

    def hear(self, message: Message | None) -> None:
        assert message is not None
        self._heard.append(message.body)
        self._lot.unpark_all()

    async def heard(self) -> list[bytes]:
        await self._broker.publish("pwned", b"end")
        with trio.fail_after(PATIENCE):
            while b"end" not in self._heard:
                await self._lot.park()
        victim = await self._broker.has_stream("VICTIM", deadline=soon())
        return [*self._heard[:-1], *([] if victim else [b"the stream is gone"])]


def soon() -> float:
    return trio.current_time() + PATIENCE


async def ear_on(broker: Broker) -> Ear:
    await broker.ensure_stream(StreamSpec(name="VICTIM", subjects=("victim",)), deadline=soon())
    return Ear(broker)


@pytest.mark.usefixtures("either_path")
async def test_a_client_refuses_it_at_the_call() -> None:
    async with (
        Server() as server,
        LocalEngine(server.url),
        open_broker(server.url) as broker,
        Client(server.url) as client,
    ):
        ear = await ear_on(broker)
        async with broker.listen("pwned", ear.hear):
            for name, call in CALLS.items():
                with pytest.raises(UsageError) as refused:
                    await call(client)
                assert "x 0" in str(refused.value), name
            await client.workflows()  # the connection goes on
            assert await ear.heard() == []


@pytest.mark.usefixtures("either_path")
async def test_a_worker_is_not_made_to_say_it() -> None:
    """By a task message that anybody can have stored."""
    async with Server() as server, LocalEngine(server.url), open_broker(server.url) as broker:
        ear = await ear_on(broker)
        worker = Worker(server.url)
        ended = trio.Event()

        @worker.handle("t")
        async def handler(ctx: TaskContext) -> None:
            await ctx.pause(0.01)  # which reads what the workflow says of the step

        def follow(message: Message | None) -> None:
            if message is not None and b'"step.completed"' in message.body:
                ended.set()

        async with (
            broker.listen("pwned", ear.hear),
            broker.listen("history.last", follow),
            worker,
        ):
            for ids in (
                {"run_id": "r", "step_id": "s", "workflow_name": INJECTION},
                {"run_id": "r", "step_id": INJECTION},
                {"run_id": INJECTION, "step_id": "s"},
                {"run_id": "last", "step_id": "s"},
            ):
                await broker.store("task.t.x", json.dumps(ids).encode(), deadline=soon())
            with trio.fail_after(PATIENCE):
                await ended.wait()
            assert await ear.heard() == []


@pytest.mark.parametrize(
    ("subject", "request_"),
    [
        ("api.runs.get", INJECTION),
        ("api.runs.get", "a\0b"),
        ("api.runs.get", "*"),
        ("api.runs.start", {"workflow": INJECTION}),
        ("api.runs.start", {"workflow": "a\ud800"}),
        ("api.runs.start", {"workflow": "w", "input": "a\ud800"}),
        ("api.runs.start", '{"workflow":"w","input":' + "[" * 100_000),
        ("api.workflows.register", {**WORKFLOW, "name": INJECTION}),
        ("api.workflows.register", {**WORKFLOW, "name": "n" * 5000}),
        ("api.workflows.register", BAD_STEP),
        ("api.workflows.register", BAD_TASK),
        ("api.workflows.register", BAD_GROUP),
        ("api.workflows.register", BAD_APPROVAL),
    ],
)
async def test_the_local_engine_answers_a_bad_request_and_lives(
    subject: str, request_: object
) -> None:
    body = request_ if isinstance(request_, str) else json.dumps(request_)
    async with Server() as server, LocalEngine(server.url), open_broker(server.url) as broker:
        ear = await ear_on(broker)
        register = json.dumps(WORKFLOW).encode()
        async with broker.listen("pwned", ear.hear):
            await broker.request("api.workflows.register", register, timeout=PATIENCE)
            refused = await broker.request(subject, body.encode(), timeout=PATIENCE)
            begun = await broker.request("api.runs.start", b'{"workflow":"w"}', timeout=PATIENCE)

            assert "error" in json.loads(refused.body)
            assert "run_id" in json.loads(begun.body)
            assert await ear.heard() == []


EVENT = {"type": "workflow.started", "run_id": "r", "payload": {"workflow_def": WORKFLOW}}
SPAWN = {"child_run_id": "c", "child_workflow": "w", "parent_step_id": "s"}
CHILD = {"type": "workflow.spawn"}
CHILD_END = {"type": "workflow.child.completed"}
SCHEDULED = {"run_id": "r", "workflow_id": "w", "run_at": "2020-01-01T00:00:00Z"}
TIMER = {"action": "step_timeout", "run_id": "r", "step_id": "s", "duration_ms": 0}
WAITER = {"run_id": "r", "step_id": "s", "event_type": "e", "match": {"left": "a"}}


STORED = [
    ("history.x", {**EVENT, "run_id": INJECTION}),
    ("history.x", {**EVENT, "run_id": "a..b"}),
    ("history.x", {**EVENT, "payload": {"workflow_def": BAD_TASK}}),
    ("history.x", {**EVENT, "payload": {"workflow_id": INJECTION}}),
    ("history.r", {**EVENT, **CHILD, "payload": {**SPAWN, "child_run_id": "a b"}}),
    ("history.r", {**EVENT, **CHILD, "payload": {**SPAWN, "child_workflow": "a b"}}),
    ("history.r", {**EVENT, **CHILD, "payload": {**SPAWN, "parent_step_id": "a\n"}}),
    ("history.r", {**EVENT, **CHILD_END, "payload": {"child_run_id": "a b"}}),
    ("history.r", {**EVENT, **CHILD_END, "payload": {}}),
    ("sleep.x.s", {**TIMER, "run_id": INJECTION}),
    ("sleep.x.s", {**TIMER, "duration_ms": float("inf")}),
    ("scheduled.x", {**SCHEDULED, "run_id": INJECTION}),
    ("scheduled.x", SCHEDULED),
    ("event.e", '{"a":' + "[" * 100_000),
]


@pytest.mark.parametrize(("subject", "message"), STORED)
async def test_the_local_engine_leaves_out_what_it_cannot_speak_of(
    subject: str, message: object
) -> None:
    body = message if isinstance(message, str) else json.dumps(message)
    workflow = Workflow("other")
    workflow.sleep("nap", 0.01)
    async with (
        Server() as server,
        LocalEngine(server.url),
        open_broker(server.url) as broker,
        Client(server.url) as client,
    ):
        ear = await ear_on(broker)
        await broker.kv_put("event_waiters", "e.r.s", json.dumps(WAITER).encode(), deadline=soon())
        await broker.kv_put("scheduled_runs", "r", b'{"run_id":"a b"}', deadline=soon())
        async with broker.listen("pwned", ear.hear):
            await broker.store("history.r", json.dumps(EVENT).encode(), deadline=soon())
            await broker.store(subject, body.encode(), deadline=soon())
            await client.register(workflow)
            run = await client.start("other")
            assert (await run.wait(PATIENCE)).status.value == "completed"
            assert await ear.heard() == []


@pytest.mark.parametrize(
    ("bucket", "key", "value"),
    [
        ("event_waiters", "e.r.s", {**WAITER, "run_id": INJECTION}),
        ("concurrency_runs", "r", {"pool": "w", "limit": 1, "action": "run_slot", "run_id": "a b"}),
        ("singleton_locks", "one", {"run_id": INJECTION}),
        ("idempotency_keys", "k", "\xff"),
    ],
)
async def test_the_local_engine_starts_on_what_it_cannot_speak_of(
    bucket: str, key: str, value: object
) -> None:
    workflow = Workflow("one", singleton="skip")
    workflow.sleep("nap", 0.01)
    async with Server() as server, open_broker(server.url) as broker, Client(server.url) as client:
        ear = await ear_on(broker)
        async with broker.listen("pwned", ear.hear):
            async with LocalEngine(server.url):
                await broker.kv_put(bucket, key, json.dumps(value).encode(), deadline=soon())
            async with LocalEngine(server.url):
                await client.register(workflow)
                run = await client.start("one")
                await broker.store("event.e", b'{"a":null}', deadline=soon())
                assert (await run.wait(PATIENCE)).status.value == "completed"
            assert await ear.heard() == []


async def test_a_stranger_cannot_say_where_a_client_asks(nats_server: Server) -> None:
    """Whoever answers for a worker says on which subject it tells of its attempts."""
    body = json.dumps({"id": "w", "endpoints": [{"name": ENDPOINT, "subject": INJECTION}]})
    async with trio.open_nursery() as nursery, open_broker(nats_server.url) as broker:
        ear = await ear_on(broker)

        def answer(message: Message | None) -> None:
            assert message is not None
            nursery.start_soon(broker.publish, message.reply, body.encode())

        async with (
            broker.listen("pwned", ear.hear),
            broker.listen(verb_subject(Verb.INFO, ""), answer),
            Client(nats_server.url) as client,
        ):
            found = await client.attempts(timeout=1)
            assert await ear.heard() == []

    assert [(worker.worker_id, worker.attempts) for worker in found] == [("w", None)]
