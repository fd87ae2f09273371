"""The live tree: what a worker tells of its attempts, and how it is found."""

import json
import logging
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import Client, TaskContext, Worker
from trio_dagnats.client import AttemptTree, Phase, SourceLine, TaskTree
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.testing import Harness, MemoryBroker
from trio_dagnats.wire import micro
from trio_dagnats.worker.directory import describe
from trio_dagnats.worker.observe.micro_service import MicroService
from trio_dagnats.worker.observe.task_trees import MOST_TASKS

PATIENCE = 10.0


async def put(harness: Harness, run_id: str) -> None:
    body = json.dumps({"run_id": run_id, "step_id": "s"}).encode()
    await harness.broker.store(f"task.t.{run_id}", body, deadline=trio.current_time() + 10)


async def look(harness: Harness, count: int = 1) -> list[AttemptTree]:
    """Give the worker so many tasks, let it work for a second, and ask what it does."""
    for number in range(count):
        await put(harness, f"r{number}")
    await trio.sleep(1)
    async with Client(harness.broker) as client:
        (found,) = await client.attempts()
    assert found.attempts is not None
    return list(found.attempts)


def place(tree: AttemptTree) -> SourceLine:
    assert tree.tasks is not None
    assert tree.tasks.place is not None
    return tree.tasks.place


async def helper(event: trio.Event) -> None:
    await event.wait()  # the guilty line


async def test_an_attempt_is_told_with_its_age_its_lease_and_its_line(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker, grace=0)

    @worker.handle("t", ack_wait=100)
    async def handler(ctx: TaskContext) -> None:
        await helper(trio.Event())

    async with worker:
        (found,) = await look(harness)
        worker.stop()

    assert (found.run_id, found.step_id, found.attempt, found.task_type) == ("r0", "s", 1, "t")
    assert found.phase is Phase.WORKING
    assert 1.0 <= found.age < 2.0
    assert 93 < found.lease_left < 95  # the margin of 5 s is not ours
    assert place(found).file == __file__
    assert place(found).function == "helper"
    assert place(found).text == "await event.wait()  # the guilty line"


async def test_declared_waits_are_told(autojump_clock: MockClock, harness: Harness) -> None:
    worker = Worker(harness.broker, grace=0)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        if ctx.run_id == "r0":
            await ctx.wait_for_signal("go")
        await ctx.pause(3600)

    async with worker:
        found = await look(harness, 2)
        worker.stop()

    assert [tree.phase for tree in found] == [Phase.WAITING] * 2
    assert [tree.detail for tree in found] == ["signal go", "pause of 3600 s"]
    assert [place(tree).text for tree in found] == [
        'await ctx.wait_for_signal("go")',
        "await ctx.pause(3600)",
    ]


async def test_child_tasks_that_stand_alike_are_one_entry(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker, grace=0)
    never = trio.Event()

    async def nested() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(helper, never)
            await trio.sleep_forever()

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(nested)
            for _ in range(20):
                nursery.start_soon(helper, never)

    async with worker:
        (found,) = await look(harness)
        worker.stop()

    assert found.tasks is not None
    alike, inner = found.tasks.children
    assert (alike.name.rpartition(".")[2], alike.alike, alike.children) == ("helper", 20, ())
    assert [child.alike for child in inner.children] == [1]
    assert inner.children[0].place == alike.place


async def test_the_tasks_of_one_attempt_are_bounded(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker, grace=0)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(1000):
                nursery.start_soon(trio.sleep_forever)

    async with worker:
        (found,) = await look(harness)
        worker.stop()

    assert found.tasks is not None
    assert sum(child.alike for child in found.tasks.children) == MOST_TASKS - 1
    assert found.tasks.omitted == 1000 - (MOST_TASKS - 1)


async def test_many_attempts_come_in_parts(autojump_clock: MockClock, harness: Harness) -> None:
    worker = Worker(harness.broker, concurrency=1000, grace=0)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        await helper(trio.Event())

    async with worker:
        found = await look(harness, 1000)
        worker.stop()

    assert {tree.run_id for tree in found} == {f"r{number}" for number in range(1000)}
    assert len(found) == 1000


async def test_a_handler_in_a_thread_is_told_with_the_line_of_the_thread(harness: Harness) -> None:
    worker = Worker(harness.broker)
    begun, over = threading.Event(), threading.Event()

    @worker.handle("t")
    def handler(ctx: TaskContext) -> None:
        begun.set()
        over.wait()  # in the thread

    async with Client(harness.broker) as client, worker:
        await put(harness, "r")
        await trio.to_thread.run_sync(begun.wait)
        (found,) = await client.attempts()
        over.set()

    assert found.attempts is not None
    (tree,) = found.attempts
    assert tree.detail == "in a thread"
    assert tree.tasks is not None
    (thread,) = tree.tasks.children
    assert isinstance(thread, TaskTree)
    assert thread.name == "thread"
    assert thread.place is not None
    assert thread.place.text == "over.wait()  # in the thread"


async def test_workers_are_told_apart(autojump_clock: MockClock, harness: Harness) -> None:
    names = ["one", "two"]
    workers = [Worker(MemoryBroker(harness.server), worker_id=name) for name in names]
    for worker in workers:
        worker.handle("t", helper_of(worker))
    async with Client(harness.broker) as client, workers[0], workers[1]:
        await trio.sleep(1)
        assert [found.worker_id for found in await client.attempts()] == names
        (only,) = await client.attempts("two")

    assert (only.worker_id, only.attempts) == ("two", ())


def helper_of(worker: Worker) -> Callable[[TaskContext], Awaitable[None]]:
    async def handler(ctx: TaskContext) -> None:
        await trio.sleep_forever()

    return handler


async def test_a_worker_that_does_not_answer_is_named(
    autojump_clock: MockClock, harness: Harness
) -> None:
    broker = MemoryBroker(harness.server)
    worker = Worker(broker, worker_id="dead")
    worker.handle("t", helper_of(worker))
    async with Client(harness.broker) as client, worker:
        await trio.sleep(1)
        broker.crash()
        (found,) = await client.attempts()
        broker.reconnect()

    assert (found.worker_id, found.attempts) == ("dead", None)


async def test_without_workers_nobody_is_waited_for(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async with Client(harness.broker) as client:
        begun = trio.current_time()
        assert await client.attempts(timeout=60) == []

    assert trio.current_time() - begun < 1.0


async def test_every_verb_is_answered_under_all_three_subjects(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker, worker_id="w")
    worker.handle("t", helper_of(worker))
    async with worker:
        await trio.sleep(1)
        for verb in micro.Verb:
            for subject in (
                f"$SRV.{verb}",
                micro.verb_subject(verb),
                micro.verb_subject(verb, "w"),
            ):
                answer = await harness.broker.request(subject, b"", timeout=PATIENCE)
                found = json.loads(answer.body)
                assert (found["id"], found["type"].split(".")[-1]) == (
                    "w",
                    f"{verb.lower()}_response",
                )


async def test_a_server_that_does_not_answer_costs_no_more_than_that(
    autojump_clock: MockClock, harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    """The subscriptions that are refused are those of a nursery, whose group is no BrokerError."""
    service = MicroService(harness.broker, describe("w", ("t",), 1), list)
    harness.broker.disconnect()

    with trio.move_on_after(60) as looked:
        await service.run()

    assert looked.cancelled_caught
    assert "cannot be looked at" in caplog.text


async def test_an_account_that_forbids_it_costs_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = tmp_path / "server.conf"
    config.write_text(
        "authorization { users: [ { user: a, password: b, permissions: { subscribe: "
        '{ deny: ["$SRV.>", "trio-dagnats-worker.>"] } } }, { user: engine, password: e } ] }'
    )
    async with Server(config=config) as server:
        host = server.url.removeprefix("nats://")
        async with LocalEngine(f"nats://engine:e@{host}"):
            await served_beside_a_forbidden_service(f"nats://a:b@{host}", caplog)

    warnings = [r for r in caplog.records if "cannot be looked at" in r.message]
    assert len(warnings) == 1


async def served_beside_a_forbidden_service(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Run one task, after the warning has come."""
    warned = trio.Event()

    class Wait(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "cannot be looked at" in record.getMessage():
                warned.set()

    waits = Wait()
    logging.getLogger("trio_dagnats.worker").addHandler(waits)
    worker = Worker(url)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> int:
        return 1

    try:
        async with Client(url) as client, worker:
            with trio.fail_after(PATIENCE):
                await warned.wait()
            await client.register(
                {"name": "w", "version": "1", "steps": [{"id": "s", "task": "t"}]}
            )
            assert await (await client.start("w")).output(PATIENCE) == 1
    finally:
        logging.getLogger("trio_dagnats.worker").removeHandler(waits)
