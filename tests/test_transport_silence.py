"""A connection on which pings are answered and pulls are not is made anew, then given up."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from contract_bench import PATIENCE, Bench, Sink
from log_lines import watching_the_log
from odd_bytes import Injector

from trio_dagnats.errors import ConnectError
from trio_dagnats.local import Server
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.nats import silence
from trio_dagnats.transport.port import Broker, Delivery, Intake, Message, PullEnd


def mute(durable: str, said: bytes) -> bytes:
    """Change a letter of the inbox that a durable's pulls name: the server answers to nobody."""
    asked = rb"(CONSUMER\.MSG\.NEXT\.\S+\.%b _INBO)X" % durable.encode()
    return re.sub(asked, rb"\1Z", said)


class Puller(Sink):
    """A sink that pulls again what comes back, as a worker does."""

    intake: Intake

    def returned(self, count: int, why: PullEnd) -> None:
        super().returned(count, why)
        self.intake.pull(count, 1.0)

    def delivered(self, delivery: Delivery) -> None:
        super().delivered(delivery)
        delivery.ack()
        self.intake.pull(1, 1.0)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some seconds instead of 90."""
    monkeypatch.setattr(silence, "LONG", 4.0)


async def pull(broker: Broker, bench: Bench, durable: str, sink: Puller) -> None:
    async with broker.intake(bench.queue, durable, sink, fresh=1.0) as intake:
        sink.intake = intake
        intake.pull(1, 1.0)
        await trio.sleep_forever()


@asynccontextmanager
async def muted(server: Server, durable: str) -> AsyncIterator[Injector]:
    """Put somebody between who lets no answer to a durable's pulls through."""
    async with trio.open_nursery() as nursery:
        injector = Injector(server.port)
        injector.edit = partial(mute, durable)
        await nursery.start(injector.run)
        yield injector
        nursery.cancel_scope.cancel()


async def on(broker: Broker) -> Bench:
    """Make a place of the test's own, with two durables."""
    bench = Bench(broker, "nats", "silence")
    await bench.set_up()
    await bench.consumer("a", "a")
    await bench.consumer("b", "b")
    return bench


async def test_pulls_that_nobody_answers_are_asked_on_a_new_connection(
    nats_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Puller()
    async with muted(nats_server, "a") as injector, open_broker(injector.url) as broker:
        injector.edit = bytes
        bench = await on(broker)
        await bench.store(bench.task("a"), b"")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pull, broker, bench, "a", sink)
            await sink.wait(1)
            nursery.cancel_scope.cancel()
    assert "the connection is made anew" in caplog.text


@pytest.mark.usefixtures("either_path")
async def test_pulls_that_nobody_answers_there_either_are_the_end(nats_server: Server) -> None:
    async with muted(nats_server, "a") as injector:
        with trio.fail_after(3 * PATIENCE), pytest.raises(ConnectError, match="nor after"):
            async with open_broker(injector.url) as broker:
                await pull(broker, await on(broker), "a", Puller())


async def test_as_long_as_others_are_answered_it_is_only_said(
    nats_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    news: list[Message | None] = []
    busy = Puller()
    async with (
        muted(nats_server, "a") as injector,
        open_broker(injector.url) as broker,
        broker.listen("echo", news.append),
        trio.open_nursery() as nursery,
    ):
        bench = await on(broker)
        nursery.start_soon(pull, broker, bench, "a", Puller())
        nursery.start_soon(pull, broker, bench, "b", busy)
        with watching_the_log("consumer a: the server has said nothing") as log:
            with trio.fail_after(2 * PATIENCE):
                await log.said.wait()
        await bench.store(bench.task("b"), b"")
        await busy.wait(1)
        nursery.cancel_scope.cancel()
    assert "anew" not in caplog.text
    assert news == []
