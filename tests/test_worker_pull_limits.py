"""Limits that a server, or whoever made a durable, sets to pulls: kept to, or said."""

from pathlib import Path

import pytest
import trio
from contract_bench import NS, PATIENCE

from trio_dagnats import Client, TaskContext, Worker, Workflow
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.local.engine import resources
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import Broker, ConsumerSpec, ConsumerState
from trio_dagnats.wire.names import TASK_QUEUES, durable_name, filter_subject
from trio_dagnats.worker.intake.durables import MAX_ACK_PENDING, Durable
from trio_dagnats.worker.intake.served import Served
from trio_dagnats.worker.intake.source import find

TASKS = 30
LIMITS = [
    pytest.param("max_request_batch: 50", 0, 0, id="the server's batch"),
    pytest.param("max_ack_pending: 500", 0, 0, id="the server's unanswered"),
    pytest.param("", 10, 0, id="a batch"),
    pytest.param("", 0, 5, id="a time"),
    pytest.param("max_request_batch: 50, max_ack_pending: 500", 10, 5, id="all"),
]


def limited(tmp_path: Path, limits: str) -> Server:
    config = tmp_path / "server.conf"
    config.write_text(f"jetstream {{ limits {{ {limits} }} }}")
    return Server(config=config, store_dir=tmp_path / "store")


class Counter:
    """A worker, and how many of its tasks have been done."""

    def __init__(self, server: Server, *types: str) -> None:
        self.worker = Worker(server.url, concurrency=100)
        self._done = 0
        self._all = trio.Event()
        for task_type in types:
            self.worker.handle(task_type, self._handle)

    async def _handle(self, ctx: TaskContext) -> None:
        self._done += 1
        if self._done == TASKS:
            self._all.set()

    async def wait(self) -> None:
        with trio.fail_after(PATIENCE):
            await self._all.wait()


async def make(broker: Broker, task_type: str, max_batch: int, seconds: int) -> None:
    """Make a durable, or change it, as an operator would."""
    spec = ConsumerSpec(
        stream=TASK_QUEUES,
        durable=durable_name(task_type),
        filter_subject=filter_subject(task_type),
        ack_wait_ns=300 * NS,
        max_ack_pending=400,
        max_batch=max_batch,
        max_expires_ns=seconds * NS,
    )
    await broker.ensure_consumer(spec, deadline=trio.current_time() + PATIENCE)


async def queue_up(broker: Broker, *types: str) -> None:
    for number in range(TASKS):
        body = b'{"run_id":"r%d","step_id":"s"}' % number
        subject = f"task.{types[number % len(types)]}.r{number}"
        await broker.store(subject, body, deadline=trio.current_time() + PATIENCE)


async def durable_of(broker: Broker, task_type: str) -> ConsumerState:
    found = await broker.consumers(TASK_QUEUES, deadline=trio.current_time() + PATIENCE)
    (state,) = [state for state in found if state.durable == durable_name(task_type)]
    return state


@pytest.mark.parametrize("types", [("a",), ("a", "b", "c")])
@pytest.mark.parametrize(("limits", "max_batch", "seconds"), LIMITS)
async def test_a_worker_keeps_to_the_limits_of_a_server_and_a_durable(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    limits: str,
    max_batch: int,
    seconds: int,
    types: tuple[str, ...],
) -> None:
    async with limited(tmp_path, limits) as server, open_broker(server.url) as broker:
        await resources.ensure(broker, trio.current_time() + PATIENCE)
        if max_batch or seconds:
            for task_type in types:
                await make(broker, task_type, max_batch, seconds)
        counter = Counter(server, *types)
        async with counter.worker:
            await queue_up(broker, *types)
            await counter.wait()
            state = await durable_of(broker, types[0])
            served = Served(task_type=types[0], group="", concurrency=None, ack_wait=300.0)
            durable = Durable(broker, served)
            _, changed = await durable.restore(await find([durable]))
            assert not changed  # though it has less

    assert state.max_ack_pending == (500 if "max_ack_pending" in limits else MAX_ACK_PENDING)
    assert ("no more than 500 unanswered" in caplog.text) == ("max_ack_pending" in limits)
    if max_batch or seconds:  # what somebody has set stays, though we raise what is ours
        assert (state.max_batch, state.max_expires_ns) == (max_batch, seconds * NS)
    assert "refused" not in caplog.text


async def test_limits_that_come_while_a_worker_serves_are_said_once_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on, ended = trio.Event(), trio.Event(), 0
    async with limited(tmp_path, "") as server, open_broker(server.url) as broker:
        await resources.ensure(broker, trio.current_time() + PATIENCE)
        worker = Worker(server.url, concurrency=1)
        done = trio.Event()

        @worker.handle("a")
        async def handler(ctx: TaskContext) -> None:
            nonlocal ended
            begun.set()
            await go_on.wait()
            ended += 1
            if ended == TASKS:
                done.set()

        async with worker:
            await queue_up(broker, "a")
            with trio.fail_after(PATIENCE):
                await begun.wait()
                await make(broker, "a", 10, 1)  # no pull is open: the one slot runs
                go_on.set()
                await done.wait()

    assert caplog.text.count("Exceeded MaxRequestExpires of 1s") == 1


async def test_an_engine_and_its_readers_keep_to_them_as_well(tmp_path: Path) -> None:
    """Its durables ask for 256 at a time, and a history is read by pulls of 1000."""
    async with (
        limited(tmp_path, "max_request_batch: 5") as server,
        LocalEngine(server.url),
        Client(server.url) as client,
    ):
        worker = Worker(server.url)

        @worker.handle("t")
        async def handler(ctx: TaskContext) -> int:
            return 1

        workflow = Workflow("w")
        for number in range(8):
            workflow.step(f"s{number}", "t")
        async with worker:
            await client.register(workflow)
            run = await client.start("w")
            assert len((await run.wait(PATIENCE)).steps) == 8
            with trio.fail_after(PATIENCE):
                assert len(await run.history()) > 16
