"""Odd messages beside the tasks: no one of them makes a worker deaf, or ends it."""

import json
import logging
from pathlib import Path

import pytest
import trio
from odd_bytes import CERTIFICATE, KEY, Injector, trusting
from trio.testing import MockClock

from trio_dagnats import Client, ConnectOptions, TaskContext, Worker, Workflow
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.testing import Harness
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.nats.subscriptions import FIRST_SID
from trio_dagnats.transport.port import Message
from trio_dagnats.wire.micro import Verb, verb_subject
from trio_dagnats.wire.names import history_subject
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.execution import admission
from trio_dagnats.worker.execution.triage import parse

PATIENCE = 30.0


class RawClient:
    """Writes protocol lines to a server, as no client library would."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream

    async def publish(self, subject: bytes, reply: bytes, body: bytes) -> None:
        """Publish a message that the server has processed when this returns."""
        lines = b'CONNECT {"verbose":false}\r\nPUB %b %b %d\r\n%b\r\nPING\r\n'
        await self._stream.send_all(lines % (subject, reply, len(body), body))
        seen = b""
        while b"PONG" not in seen:
            seen += await self._stream.receive_some()


async def say(server: Server, subject: bytes, reply: bytes, body: bytes) -> None:
    """Publish a message whose subjects are any bytes."""
    async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
        await RawClient(stream).publish(subject, reply, body)


@pytest.mark.parametrize("payload", [b"NaN", b"1e999", b"[-Infinity]", b"[" * 10_000])
async def test_an_odd_event_in_its_run_s_history_ends_no_worker(
    tmp_path: Path, payload: bytes
) -> None:
    """Neither live, nor when a redelivery reads it; engine and client pass over it, too."""
    async with (
        Server(store_dir=tmp_path) as server,
        LocalEngine(server.url),
        Client(server.url) as client,
        open_broker(server.url) as broker,
    ):
        worker = Worker(server.url)

        @worker.handle("work")
        async def work(ctx: TaskContext) -> int:
            if ctx.deliveries == 1:
                body = b'{"type":"workflow.x","run_id":"%b","payload":%b}'
                await broker.store(
                    history_subject(ctx.run_id),
                    body % (ctx.run_id.encode(), payload),
                    deadline=trio.current_time() + PATIENCE,
                )
                await ctx.pause(0.05)
            return ctx.deliveries

        workflow = Workflow("work")
        workflow.step("work", "work")
        async with worker:
            await client.register(workflow)
            run = await client.start("work")
            with trio.fail_after(PATIENCE):
                assert await run.output() is not None
                kinds = [event.type async for event in run.events()]

    assert kinds[-1] == "workflow.completed"
    assert "workflow.x" not in kinds


@pytest.mark.parametrize(
    ("subject", "reply"), [(b"$SRV.PING", b"x\xff"), (b"$SRV.PING", b"x\x01"), (b"$SRV.\xff", b"x")]
)
async def test_a_question_that_cannot_be_answered_makes_nobody_deaf(
    nats_server: Server, subject: bytes, reply: bytes
) -> None:
    """The micro service of the worker, and the ping of the engine."""
    async with Server() as server, LocalEngine(server.url), open_broker(server.url) as broker:
        worker = Worker(server.url, worker_id="me")

        @worker.handle("t")
        async def handler(ctx: TaskContext) -> None: ...

        async with worker:
            await say(server, subject, reply, b"")
            await say(server, subject.replace(b"PING", b"PING.dagnats-api"), reply, b"")
            answer = await broker.request(verb_subject(Verb.PING, "me"), b"", timeout=PATIENCE)
            await broker.request("$SRV.PING.dagnats-api", b"", timeout=PATIENCE)

    assert json.loads(answer.body)["id"] == "me"


async def test_odd_answers_hide_no_worker(autojump_clock: MockClock, harness: Harness) -> None:
    """Of one that says it is a worker, and of whoever writes to the client's inbox."""
    worker = Worker(harness.broker, worker_id="me")

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None: ...

    async def lie(question: Message) -> None:
        inbox = question.reply.rpartition(".")[0]
        odd = b'{"id":"odd","endpoints":[{"name":"attempts","subject":"two words"}]}'
        await harness.broker.publish(question.reply, odd)
        for token in ("\u00b2", "99", "-1", "x", "9" * 3000):
            await harness.broker.publish(f"{inbox}.{token}", b"{}")

    async with trio.open_nursery() as nursery:

        def hear(message: Message | None) -> None:
            assert message is not None
            nursery.start_soon(lie, message)

        async with (
            worker,
            Client(harness.broker) as client,
            harness.broker.listen(verb_subject(Verb.INFO), hear),
        ):
            found = await client.attempts(timeout=5)

    assert ("me", ()) in [(told.worker_id, told.attempts) for told in found]


async def test_a_task_whose_start_fails_keeps_no_slot(
    autojump_clock: MockClock,
    harness: Harness,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A defect of ours: it is logged, the task comes again after its lease, others go on."""
    broken = True

    def choke(attempt: Attempt) -> object:
        if broken:
            raise RuntimeError("a defect of ours")
        return parse(attempt)

    monkeypatch.setattr(admission, "parse", choke)
    worker = Worker(harness.broker, concurrency=1)

    @worker.handle("t", ack_wait=30)
    async def handler(ctx: TaskContext) -> int:
        return ctx.deliveries

    async with worker:
        with pytest.raises(trio.TooSlowError):
            await harness.run("t", timeout=1)
        with pytest.raises(trio.TooSlowError):
            await harness.run("t", timeout=1)
        broken = False
        assert (await harness.run("t")).output == 1
        await trio.sleep(60)

    answers = [answer.body for answer in harness.server.answers]
    assert answers == ["+ACK"] * 3
    assert "a defect of ours" in caplog.text
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 2


@pytest.mark.parametrize("encrypted", [True, False])
async def test_nothing_is_taken_before_the_server_has_greeted(
    tmp_path: Path, *, encrypted: bool
) -> None:
    """Plain bytes before the handshake are anybody's."""
    heard: list[bytes] = []
    missed = trio.Event()

    def hear(message: Message | None) -> None:
        if message is None:
            missed.set()
        else:
            heard.append(message.body)

    config = tmp_path / "server.conf"
    config.write_text(
        f'tls {{ cert_file: "{CERTIFICATE}", key_file: "{KEY}" }}' if encrypted else ""
    )
    options = ConnectOptions(tls=trusting()) if encrypted else None
    async with Server(config=config) as server, trio.open_nursery() as nursery:
        injector = Injector(server.port)
        await nursery.start(injector.run)
        async with open_broker(injector.url, options) as broker, broker.listen("echo", hear):
            for sid in range(FIRST_SID, FIRST_SID + 3):
                injector.greetings.append(b"MSG echo %d 6\r\nforged\r\n" % sid)
            await injector.inject(b"what?\r\n")
            with trio.fail_after(PATIENCE):
                await missed.wait()
            assert not injector.greetings
        nursery.cancel_scope.cancel()

    assert not heard
