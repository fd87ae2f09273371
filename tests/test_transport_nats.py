"""Our own connection on a real server: outages, refusals, the fall-back to public calls."""

import logging
import uuid
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from contract_bench import PATIENCE, Bench, Sink

from benchmarks.partitions import DOWN, Proxy
from trio_dagnats import Client, ConnectOptions, TaskContext, Worker, Workflow
from trio_dagnats.errors import ConnectError, UsageError
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.nats_py import connection


async def test_what_is_stored_during_an_outage_arrives_once(tmp_path: Path) -> None:
    async with Server(store_dir=tmp_path) as server, open_broker(server.url) as broker:
        bench = Bench(broker, "nats", "x")
        await bench.set_up()
        await bench.store(bench.subject("a"), b"0")
        server.kill()
        async with trio.open_nursery() as nursery:
            for number in range(1, 50):
                nursery.start_soon(bench.store, bench.subject("a"), b"%d" % number, f"id{number}")
            await trio.to_thread.run_sync(server.restart)

        found = await broker.records(bench.stream, bench.subject("a"), deadline=bench.soon)

    assert sorted(int(record.body) for record in found) == list(range(50))


async def test_pulls_go_on_after_an_outage(tmp_path: Path) -> None:
    sink = Sink()
    async with Server(store_dir=tmp_path) as server, open_broker(server.url) as broker:
        bench = Bench(broker, "nats", "x")
        await bench.set_up()
        await bench.consumer()
        async with broker.intake(bench.queue, "c", sink) as intake:
            intake.pull(10, 60.0)
            await bench.store(bench.task("a"), b"before")
            (first,) = await sink.wait(1)
            first.ack()
            server.kill()
            await trio.to_thread.run_sync(server.restart)
            await bench.store(bench.task("a"), b"after")
            with trio.fail_after(PATIENCE):
                while not any(delivery.body == b"after" for delivery in sink.deliveries):
                    await sink.wait(len(sink.deliveries) + 1)


async def test_a_message_that_was_held_up_on_its_way_is_known_to_be_old(tmp_path: Path) -> None:
    sink = Sink()
    async with Server(store_dir=tmp_path) as server, trio.open_nursery() as nursery:
        proxy = Proxy(server.port)
        await nursery.start(proxy.run)
        async with open_broker(server.url) as near, open_broker(proxy.url) as broker:
            bench = Bench(near, "nats", "x")
            await bench.set_up()
            await bench.consumer()
            async with broker.intake(bench.queue, "c", sink, fresh=0.05) as intake:
                intake.pull(10, 60.0)
                await bench.store(bench.task("a"), b"in time")
                (in_time,) = await sink.wait(1)
                nursery.start_soon(partial(proxy.partition, (DOWN,), 1.0, drop=False))
                await trio.testing.wait_all_tasks_blocked()
                held_at = trio.current_time()
                await bench.store(bench.task("a"), b"late")
                (_, late) = await sink.wait(2)
                in_time.ack()
                late.ack()
        nursery.cancel_scope.cancel()

    assert late.sent_after < held_at < late.received_at
    assert in_time.sent_after <= in_time.received_at <= held_at


@pytest.mark.parametrize(("heard", "deliveries"), [(">", 2), ("s.>", 1)])
async def test_who_listens_to_everything_takes_tasks_from_a_dead_workers_inbox(
    nats_server: Server, heard: str, deliveries: int
) -> None:
    """The server goes on answering the open pull: somebody has interest in its inbox (H39)."""
    sink = Sink()
    async with open_broker(nats_server.url) as broker:
        bench = Bench(broker, "nats", uuid.uuid4().hex[:8])
        await bench.set_up()
        await bench.consumer(ack_wait=1.0)
        async with broker.listen(heard, lambda _: None):
            await a_worker_pulls_and_dies(bench, nats_server.port)
            if heard != ">":
                await bench.pulled("c", waiting=False)
            await bench.store(bench.task("a"))
            async with broker.intake(bench.queue, "c", sink) as intake:
                intake.pull(1, 60.0)
                (found,) = await sink.wait(1)
                found.ack()

    assert found.deliveries == deliveries


async def a_worker_pulls_and_dies(bench: Bench, port: int) -> None:
    """Leave a pull open on the server, whose inbox nobody owns any more."""
    body = b'{"batch":1,"expires":60000000000}'
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        pull = f"PUB $JS.API.CONSUMER.MSG.NEXT.{bench.queue}.c dead.{bench.token} {len(body)}"
        lines = [b"CONNECT {}", f"SUB dead.{bench.token} 1".encode(), pull.encode(), body, b""]
        await stream.send_all(b"\r\n".join(lines))
        await bench.pulled("c")


@pytest.mark.usefixtures("either_path")
async def test_a_run_goes_on_when_the_server_is_killed_under_it(tmp_path: Path) -> None:
    """Worker, engine and client all live through it."""
    async with (
        Server(store_dir=tmp_path) as server,
        LocalEngine(server.url),
        Client(server.url) as client,
    ):
        worker = Worker(server.url)
        started = trio.Event()

        @worker.handle("work")
        async def work(ctx: TaskContext) -> int:
            started.set()
            await trio.sleep(0.5)
            return ctx.attempt

        workflow = Workflow("work")
        workflow.step("then", "work", after=workflow.step("work"))
        async with worker:
            await client.register(workflow)
            run = await client.start("work")
            await started.wait()
            server.kill()
            await trio.to_thread.run_sync(server.restart)
            assert await run.output(timeout=30) == 1


async def test_without_fitting_hooks_the_public_path_is_used(
    nats_server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(connection.PUBLIC_PATH, raising=False)
    monkeypatch.setattr(connection, "hooks_fit", lambda: False)
    async with Server() as server, LocalEngine(server.url), Client(server.url) as client:
        worker = Worker(server.url)

        @worker.handle("work")
        async def work(ctx: TaskContext) -> str:
            return "done"

        workflow = Workflow("work")
        workflow.step("work")
        async with worker:
            await client.register(workflow)
            run = await client.start("work")
            assert await run.output(timeout=30) == "done"

    assert "public calls" in caplog.text


@pytest.mark.parametrize("url", ["", "nats://", "http://host", "nats://host:99999", "a b"])
async def test_a_url_that_cannot_be_dialled_is_refused_by_name(url: str) -> None:
    with pytest.raises(UsageError, match="no server URL"):
        async with open_broker(url):
            pass


async def test_no_server_is_a_connect_error_within_the_timeout() -> None:
    options = ConnectOptions(connect_timeout=0.5)
    with trio.fail_after(5), pytest.raises(ConnectError, match=r"127\.0\.0\.1:1"):
        async with open_broker("nats://127.0.0.1:1", options):
            pass


def test_no_secret_is_shown() -> None:
    assert "hunter2" not in repr(ConnectOptions(user="ada", password="hunter2"))
    assert "t0ken" not in repr(ConnectOptions(token="t0ken"))


async def test_a_lost_connection_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with Server(store_dir=tmp_path) as server, open_broker(server.url) as broker:
        bench = Bench(broker, "nats", "x")
        await bench.set_up()
        server.kill()
        await trio.to_thread.run_sync(server.restart)
        await bench.store(bench.subject("a"))

    told = [r.getMessage() for r in caplog.records if r.name == "trio_dagnats.transport"]
    assert [line.rpartition(" ")[2] for line in told] == ["reconnecting", "back"]
