"""Bad names, bad servers, drains and leases, on the in-memory server in virtual time."""

import json

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import Client, ConnectOptions, TaskContext, Worker
from trio_dagnats.errors import ConnectError, EngineError, UsageError
from trio_dagnats.testing import Harness, MemoryBroker
from trio_dagnats.transport.port import Message


async def noop(ctx: TaskContext) -> None:
    pass


@pytest.mark.parametrize("name", ["", "a b", "a.*", "a.>", ".a", "a..b", "a\n", "x" * 201])
def test_illegal_task_types_are_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match="task type"):
        Worker("nats://localhost").handle(name, noop)


@pytest.mark.parametrize("group", ["a.b", "a b", "*", ">"])
def test_illegal_groups_are_refused_by_name(group: str) -> None:
    with pytest.raises(UsageError, match="worker group"):
        Worker("nats://localhost").handle("t", noop, group=group)


@pytest.mark.parametrize("name", ["", "a.b", "a b"])
def test_illegal_worker_ids_are_refused_by_name(name: str) -> None:
    with pytest.raises(UsageError, match="worker id"):
        Worker("nats://localhost", worker_id=name)


@pytest.mark.parametrize(
    "options", [{"concurrency": 0}, {"grace": -1}, {"grace": float("nan")}, {"concurrency": 10**9}]
)
def test_values_out_of_range_are_refused_by_name(options: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        Worker("nats://localhost", **options)  # type: ignore[arg-type]  # on purpose


def test_two_handlers_for_one_type_are_refused() -> None:
    worker = Worker("nats://localhost")
    worker.handle("t", noop)

    with pytest.raises(UsageError, match="'t'"):
        worker.handle("t", noop)


def test_overlapping_filters_are_refused() -> None:
    worker = Worker("nats://localhost")
    worker.handle("a", noop)

    with pytest.raises(UsageError, match=r"'a\.b'"):
        worker.handle("a.b", noop)


async def test_a_server_without_the_streams_says_what_to_run(memory: MemoryBroker) -> None:
    worker = Worker(memory)
    worker.handle("t", noop)

    with pytest.raises(EngineError, match="dagnats serve"):
        async with worker:
            pass


async def test_a_worker_that_serves_nothing_says_so(
    autojump_clock: MockClock, harness: Harness
) -> None:
    with pytest.raises(UsageError, match="register a handler"):
        async with Worker(harness.broker):
            pass


async def put(harness: Harness, subject: str, body: bytes) -> None:
    await harness.broker.store(subject, body, deadline=trio.current_time() + 10)


@pytest.mark.parametrize("body", [b"{not json", b"[]", b"", b'{"run_id":"r"}'])
async def test_what_is_no_task_is_kept_and_harms_nobody(
    autojump_clock: MockClock, harness: Harness, body: bytes
) -> None:
    worker = Worker(harness.broker)
    worker.handle("t", noop)
    await put(harness, "task.t.r", body)

    async with worker:
        assert (await harness.run("t")).kind == "completed"

    assert [answer[2] for answer in harness.server.answers] == ["+TERM", "+ACK"]
    letters = harness.server.stream("DEAD_LETTERS").read("dead.>", harness.broker.time_ns())
    assert [letter.body for letter in letters] == [body]


async def test_a_bad_task_that_names_its_step_fails_it(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)
    worker.handle("t", noop)
    heard: list[bytes] = []

    def hear(message: Message | None) -> None:
        assert message is not None
        heard.append(message.body)

    async with harness.broker.listen("history.r", hear), worker:
        body = {"run_id": "r", "step_id": "s", "attempt": "first"}
        await put(harness, "task.t.r", json.dumps(body).encode())
        await trio.sleep(1)

    (event,) = [json.loads(body) for body in heard]
    assert event["type"] == "step.failed"
    assert event["payload"]["failure_type"] == "non_retriable"
    assert "attempt is not a whole number" in event["payload"]["error"]


async def test_a_task_with_unknown_fields_is_a_task(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> str:
        done.append(ctx.run_id)
        return "x"

    done: list[str] = []
    async with worker:
        body = {"run_id": "r", "step_id": "s", "from_the_future": {"x": [1]}}
        await put(harness, "task.t.r", json.dumps(body).encode())
        await trio.sleep(1)

    assert done == ["r"]


async def test_a_drain_lets_handlers_finish_within_the_grace(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker, grace=10)
    started = trio.Event()

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> str:
        started.set()
        await trio.sleep(5)
        return "done"

    async with worker:
        await put(harness, "task.t.r", b'{"run_id":"r","step_id":"s"}')
        await started.wait()

    assert [line.end for line in worker.ledger] == ["completed"]
    assert [answer[2] for answer in harness.server.answers] == ["+ACK"]


async def test_what_outlives_the_grace_is_handed_back_and_finished_elsewhere(
    autojump_clock: MockClock,
    harness: Harness,
) -> None:
    started = trio.Event()

    def make(seconds: float) -> Worker:
        worker = Worker(harness.broker, grace=1)

        @worker.handle("t")
        async def handler(ctx: TaskContext) -> int:
            started.set()
            await trio.sleep(seconds)
            return ctx.attempt

        return worker

    first = make(3600)
    async with first:
        await put(harness, "task.t.r", b'{"run_id":"r","step_id":"s"}')
        await started.wait()
    assert [line.end for line in first.ledger] == ["handed back"]

    async with make(0):
        await trio.sleep(1)
    assert [answer[2] for answer in harness.server.answers] == ["-NAK", "+ACK"]


async def test_the_directory_entry_lives_until_the_last_attempt_has_ended(
    autojump_clock: MockClock,
    harness: Harness,
) -> None:
    worker = Worker(harness.broker, grace=10)
    started = trio.Event()

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> list[str]:
        started.set()
        await ctx.draining.wait()
        await trio.sleep(5)
        return [found.worker_id for found in await client.workers()]

    async with Client(harness.broker) as client:
        async with worker:
            await put(harness, "task.t.r", b'{"run_id":"r","step_id":"s"}')
            await started.wait()
        assert await client.workers() == []

    history = harness.server.stream("WORKFLOW_HISTORY").read("history.r", harness.broker.time_ns())
    done = [json.loads(record.body) for record in history][-1]
    assert done["payload"] == [worker.worker_id]


async def test_cancelling_from_outside_hands_everything_back(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker, grace=100)
    started = trio.Event()

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        started.set()
        await trio.sleep_forever()

    with trio.CancelScope() as scope:
        async with worker:
            await put(harness, "task.t.r", b'{"run_id":"r","step_id":"s"}')
            await started.wait()
            scope.cancel()
            await trio.sleep_forever()

    assert [answer[2] for answer in harness.server.answers] == ["-NAK"]


async def test_a_long_task_renews_its_own_lease(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)
    calls = 0

    @worker.handle("t", ack_wait=30)
    async def handler(ctx: TaskContext) -> int:
        nonlocal calls
        calls += 1
        await trio.sleep(300)
        return calls

    async with worker:
        assert (await harness.run("t", timeout=600)).output == 1


async def test_a_lost_lease_ends_the_attempt_and_says_nothing(autojump_clock: MockClock) -> None:
    async with Harness() as harness:
        broken, whole = harness.broker, MemoryBroker(harness.server)
        ends: list[str] = []

        def make(broker: MemoryBroker, name: str) -> Worker:
            worker = Worker(broker, worker_id=name, grace=0)

            @worker.handle("t", ack_wait=30)
            async def handler(ctx: TaskContext) -> str:
                try:
                    await trio.sleep(20 if name == "second" else 3600)
                finally:
                    ends.append(f"{name} {ctx.cancel_reason}")
                return name

            return worker

        async with make(broken, "first"):
            await put(harness, "task.t.r", b'{"run_id":"r","step_id":"s"}')
            await trio.sleep(1)
            broken.crash()
            async with make(whole, "second"):
                await trio.sleep(120)
            broken.reconnect()

        assert ends[0].startswith("first")
        assert "LEASE" in ends[0].upper()
        assert [answer[2] for answer in harness.server.answers] == ["+ACK"]


async def test_a_second_delivery_of_a_task_that_runs_here_does_not_run_it_again(
    autojump_clock: MockClock, harness: Harness
) -> None:
    """A server that was killed may hand out again what its worker still holds."""
    worker = Worker(harness.broker)
    calls = 0

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> int:
        nonlocal calls
        calls += 1
        await trio.sleep(20)
        return calls

    async with worker:
        await put(harness, "task.t.r", b'{"run_id":"r","step_id":"s"}')
        await trio.sleep(1)
        harness.server.stream("TASK_QUEUES").consumers["workers-t"].nak(1, 0.0)
        await trio.sleep(60)

    assert calls == 1
    assert [answer[2] for answer in harness.server.answers] == ["+ACK"]


async def test_a_worker_group_gets_only_its_own_tasks(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)
    seen: list[str] = []

    @worker.handle("t", group="gpu")
    async def handler(ctx: TaskContext) -> None:
        seen.append(ctx.run_id)

    async with worker:
        await put(harness, "task.t.gpu.mine", b'{"run_id":"mine","step_id":"s"}')
        await put(harness, "task.t.other", b'{"run_id":"other","step_id":"s"}')
        await trio.sleep(1)

    assert seen == ["mine"]


async def test_a_handler_limit_bounds_its_attempts(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)
    most = running = 0

    @worker.handle("t", concurrency=3)
    async def handler(ctx: TaskContext) -> None:
        nonlocal most, running
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1

    for number in range(20):
        body = json.dumps({"run_id": f"r{number}", "step_id": "s"}).encode()
        await put(harness, f"task.t.r{number}", body)
    async with worker:
        await trio.sleep(30)

    assert most == 3
    assert len(harness.server.answers) == 20


async def test_a_wrong_url_fails_within_the_deadline_and_names_the_host() -> None:
    options = ConnectOptions(connect_timeout=0.5)
    worker = Worker("nats://secret:word@127.0.0.1:1", options=options)
    worker.handle("t", noop)

    with pytest.raises(ConnectError) as error:
        async with worker:
            pass

    assert "127.0.0.1:1" in str(error.value)
    assert "word" not in str(error.value)
