"""A worker on a real server: start-ups cut short, large tasks, a server that stands still."""

import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import nats
import pytest
import trio
from nats.aio.client import Client as NatsClient

from trio_dagnats import Client, TaskContext, Worker, Workflow
from trio_dagnats.errors import ConnectError, NotStored
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.transport import open_broker, trio_asyncio
from trio_dagnats.transport.nats.link import Link
from trio_dagnats.transport.nats_py.connection import _Connection
from trio_dagnats.transport.port import Broker
from trio_dagnats.worker.deadlines import gone_within

PATIENCE = 30.0
TASK = b'{"run_id":"r","step_id":"s"}'


class CancelAt(trio.abc.Instrument):
    """Cancels a scope at the n-th step that any task makes."""

    def __init__(self, step: int, scope: trio.CancelScope) -> None:
        self._step = step
        self._scope = scope
        self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += 1
        if self.steps == self._step:
            self._scope.cancel()


def noop_worker(url: str | NatsClient) -> Worker:
    worker = Worker(url)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> str:
        return ctx.run_id

    return worker


async def steps_of_a_start(url: str, cancel_at: int) -> int:
    """Start a worker that is cancelled at a step, or as soon as it is ready; count the steps."""
    with trio.CancelScope() as scope:
        counting = CancelAt(cancel_at, scope)
        trio.lowlevel.add_instrument(counting)
        try:
            async with noop_worker(url):
                scope.cancel()
                await trio.lowlevel.checkpoint()
        finally:
            trio.lowlevel.remove_instrument(counting)
    return counting.steps


pytestmark = pytest.mark.usefixtures("either_path")


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A server with an engine of its own."""
    async with Server() as server, LocalEngine(server.url):
        yield server.url


async def test_a_start_may_be_cancelled_at_any_of_its_steps(url: str) -> None:
    threads = threading.active_count()
    whole = await steps_of_a_start(url, 0)
    for step in range(1, whole, 2):
        with trio.fail_after(PATIENCE):
            await steps_of_a_start(url, step)

    async with noop_worker(url), Client(url) as client:
        assert len(await client.workers()) == 1
        assert threading.active_count() <= threads + 3  # trio keeps some for a while


async def test_a_start_on_a_connected_client_may_be_cancelled(url: str) -> None:
    async with trio_asyncio.open_loop():
        client = await trio_asyncio.aio_as_trio(nats.connect)(url)
        for step in range(1, 40):
            with trio.fail_after(PATIENCE), trio.CancelScope() as scope:
                counting = CancelAt(step, scope)
                trio.lowlevel.add_instrument(counting)
                try:
                    async with open_broker(client):
                        scope.cancel()
                finally:
                    trio.lowlevel.remove_instrument(counting)
        assert client.is_connected
        await trio_asyncio.aio_as_trio(client.close)()


async def test_a_connection_that_is_closed_under_a_worker_ends_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its drain finds nobody who answers; everything that it asks for has its deadline."""
    closes: list[Callable[[], Awaitable[None]]] = []
    make_link = _Connection._make_link

    def remember(self: _Connection, loop: trio_asyncio.TrioEventLoop) -> Link:
        link = make_link(self, loop)
        closes.append(trio_asyncio.aio_as_trio(self._client.close, loop=loop))
        return link

    monkeypatch.setattr(_Connection, "_make_link", remember)
    worker, started = Worker(url), trio.Event()

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        started.set()
        await trio.sleep_forever()

    async with open_broker(url) as broker:
        await broker.store("task.t.r", TASK, deadline=trio.current_time() + PATIENCE)

    async def serve() -> None:
        async with worker:
            await started.wait()
            await closes[-1]()
            await trio.sleep_forever()

    with trio.fail_after(PATIENCE), pytest.raises(ConnectError, match="ended for good"):
        await serve()
    assert [line.end for line in worker.ledger] == ["lease left to expire"]


async def test_a_client_that_is_closed_under_a_worker_ends_it(url: str) -> None:
    async with trio_asyncio.open_loop():
        client = await trio_asyncio.aio_as_trio(nats.connect)(url)

        async def serve() -> None:
            async with noop_worker(client):
                await trio_asyncio.aio_as_trio(client.close)()
                await trio.sleep_forever()

        with trio.fail_after(PATIENCE), pytest.raises(ConnectError, match="was closed"):
            await serve()


@pytest.mark.parametrize("end", ["close", "drain"])
async def test_what_is_asked_for_ends_with_its_connection(url: str, end: str) -> None:
    """Also what is shielded, as storing an outcome is until its lease ends."""
    ends: list[str] = []
    async with trio_asyncio.open_loop(), open_broker(url) as other:
        client = await trio_asyncio.aio_as_trio(nats.connect)(url)
        asked = trio.Event()

        async def ask(broker: Broker) -> None:
            shield = trio.CancelScope(shield=True, deadline=trio.current_time() + PATIENCE)
            with shield, pytest.raises(NotStored):
                await broker.request("mute", b"", timeout=600)
            ends.append("request")

        async def serve() -> None:
            async with open_broker(client) as broker, trio.open_nursery() as nursery:
                nursery.start_soon(ask, broker)
                await asked.wait()
                await trio_asyncio.aio_as_trio(getattr(client, end))()
                nursery.start_soon(ask, broker)
                await trio.sleep_forever()

        async with other.listen("mute", lambda _: asked.set()):
            with trio.fail_after(PATIENCE), pytest.raises(ConnectError):
                await serve()
    assert ends == ["request", "request"]


async def test_a_worker_under_a_timeout_of_the_caller_s_hands_back_and_goes(url: str) -> None:
    worker = Worker(url)
    started = trio.Event()

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        started.set()
        await trio.sleep_forever()

    async with open_broker(url) as broker:
        with trio.CancelScope() as scope:
            async with worker:
                await broker.store("task.t.r", TASK, deadline=trio.current_time() + PATIENCE)
                await started.wait()
                scope.deadline = trio.current_time()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        assert [line.end for line in worker.ledger] == ["handed back"]
        async with noop_worker(url):
            with trio.fail_after(PATIENCE):
                while await broker.last_record(
                    "TASK_QUEUES", "task.t.r", deadline=trio.current_time() + PATIENCE
                ):
                    await trio.sleep(0.02)


async def test_two_workers_of_one_process_and_a_second_start(url: str) -> None:
    workflow = Workflow("w")
    workflow.step("t")
    one, two = noop_worker(url), noop_worker(url)
    async with Client(url) as client:
        await client.register(workflow)
        for _ in range(2):
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(one)
                await stack.enter_async_context(two)
                assert len(await client.workers()) == 2
                runs = [await client.start("w") for _ in range(10)]
                for run in runs:
                    assert await run.output(PATIENCE) == run.id
        assert await client.workers() == []


async def test_a_task_of_five_megabytes_is_read(tmp_path: Path) -> None:
    config = tmp_path / "server.conf"
    config.write_text("max_payload: 8MB\n")
    async with Server(config=config) as server, LocalEngine(server.url):
        worker = Worker(server.url)

        @worker.handle("t")
        async def handler(ctx: TaskContext) -> int:
            return len(ctx.input)

        workflow = Workflow("w")
        workflow.step("t")
        async with Client(server.url) as client, worker:
            await client.register(workflow)
            run = await client.start("w", "x" * 5_000_000)
            assert await run.output(PATIENCE) == 5_000_002


async def test_the_largest_task_that_is_none_is_taken_out_too(url: str) -> None:
    """With the headers of a dead letter it no longer fits: it is logged, and harms nobody."""
    async with open_broker(url) as broker, noop_worker(url):
        body = bytes(broker.max_payload)
        await broker.store("task.t.bad", body, deadline=trio.current_time() + PATIENCE)
        await broker.store("task.t.r", TASK, deadline=trio.current_time() + PATIENCE)
        for subject in ("task.t.bad", "task.t.r"):
            with trio.fail_after(PATIENCE):
                while await broker.last_record(
                    "TASK_QUEUES", subject, deadline=trio.current_time() + PATIENCE
                ):
                    await trio.sleep(0.02)


@pytest.mark.parametrize("over", [0, 1])
async def test_an_output_at_the_bound_completes_and_one_byte_more_fails_for_good(
    url: str, over: int
) -> None:
    worker = Worker(url)

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> bytes:
        most = (2**20 - 8192) * 3 // 4
        return b'"%b"' % (b"x" * (most - 2 + over))

    workflow = Workflow("w")
    workflow.step("t")
    async with Client(url) as client, worker:
        await client.register(workflow)
        run = await client.start("w")
        ended = await run.wait(PATIENCE)

    assert ended.status.value == ("failed" if over else "completed")
    assert ("more than" in ended.failed_step()[1]) is bool(over)


async def test_a_server_that_stands_still_for_a_while_loses_nothing(tmp_path: Path) -> None:
    """Longer than a subscription may take to be confirmed."""
    async with Server(store_dir=tmp_path) as server, LocalEngine(server.url):
        worker = Worker(server.url)
        started = trio.Event()

        @worker.handle("t")
        async def handler(ctx: TaskContext) -> int:
            started.set()
            await trio.sleep(1)
            return ctx.deliveries

        workflow = Workflow("w")
        workflow.step("t")
        pid = server._server_pid()
        assert pid is not None
        async with Client(server.url) as client, worker:
            await client.register(workflow)
            run = await client.start("w")
            await started.wait()
            os.kill(pid, signal.SIGSTOP)
            try:
                await trio.sleep(7)
            finally:
                os.kill(pid, signal.SIGCONT)
            assert await run.output(PATIENCE) == 1


async def test_a_start_on_a_server_that_stands_still_may_be_cancelled() -> None:
    """Connected, but none of the requests that follow is answered.

    A busy server may answer the first of them before it stands; then a whole drain follows.
    """
    async with Server() as server, open_broker(server.url) as broker:
        async with LocalEngine(server.url):
            pass
        pid = server._server_pid()
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        worker = Worker(broker)
        worker.handle("t", noop)
        try:
            with trio.fail_after(2 * gone_within(0)), trio.move_on_after(1) as scope:
                async with worker:
                    await trio.sleep_forever()
        finally:
            os.kill(pid, signal.SIGCONT)
    assert scope.cancelled_caught


async def noop(ctx: TaskContext) -> None: ...
