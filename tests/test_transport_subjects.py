"""Inboxes and the JetStream API under other names: of a user who may not use the usual ones."""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
import trio
from contract_bench import PATIENCE, Bench, Sink

from trio_dagnats import Client, ConnectOptions, TaskContext, Worker, Workflow
from trio_dagnats.errors import ConnectError, Missing, NotStored, UsageError
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.transport import open_broker, trio_asyncio
from trio_dagnats.transport.port import Broker, StreamSpec

OTHER_INBOX = ConnectOptions(inbox_prefix="_MINE.inbox")
OTHER_API = ConnectOptions(jetstream_prefix="engine.api")
DOMAIN = ConnectOptions(jetstream_domain="hub")


async def all_that_has_an_answer(broker: Broker) -> None:
    """Use whatever asks the server for something."""
    bench = Bench(broker, "", "x")
    await bench.set_up()
    await bench.store(bench.subject("a"), b"one", msg_id="1")
    assert len(await broker.records(bench.stream, bench.subject("a"), deadline=bench.soon)) == 1
    assert await broker.last_record(bench.stream, bench.subject("a"), deadline=bench.soon)
    for key in ("k.a", "k.b"):
        await broker.kv_put(bench.bucket, key, b"v", deadline=bench.soon)
    assert await broker.kv_get(bench.bucket, "k.a", deadline=bench.soon)
    both = await broker.kv_get_many(bench.bucket, ["k.a", "k.b"], deadline=bench.soon)
    assert both.keys() == {"k.a", "k.b"}
    await broker.kv_delete(bench.bucket, "k.a", deadline=bench.soon)
    assert len(await broker.kv_entries(bench.bucket, "k.", deadline=bench.soon)) == 1
    await broker.kv_clear(bench.bucket, "k.", deadline=bench.soon)
    assert await broker.kv_get(bench.bucket, "k.b", deadline=bench.soon) is None
    with pytest.raises(Missing):
        await broker.kv_get("nowhere", "k", deadline=bench.soon)
    with pytest.raises(Missing):
        await broker.kv_get_many("nowhere", ["k", "l"], deadline=bench.soon)
    with pytest.raises(Missing):
        await broker.kv_put("nowhere", "k", b"v", deadline=bench.soon)
    with pytest.raises(Missing):
        await broker.records("NOWHERE", "x", deadline=bench.soon)

    await bench.consumer("c")
    await bench.store(bench.task("a"), b"task", msg_id="2")
    sink = Sink()
    async with broker.intake(bench.queue, "c", sink) as intake:
        intake.pull(1, PATIENCE)
        (delivery,) = await sink.wait(1)
        await delivery.renew(deadline=bench.soon)
        delivery.ack()
    with trio.fail_after(PATIENCE):  # an acknowledgement has no answer
        while any(c.ack_pending for c in await broker.consumers(bench.queue, deadline=bench.soon)):
            pass
    await broker.delete_consumer(bench.queue, "c", deadline=bench.soon)


@asynccontextmanager
async def connected(
    way: str, url: str, options: ConnectOptions, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Broker]:
    """Connect by our own bytes, by nats-py's calls, or on a client of the user's."""
    if way != "borrowed":
        monkeypatch.setenv("TRIO_DAGNATS_PUBLIC_PATH", "1" if way == "public" else "")
        async with open_broker(url, options) as broker:
            yield broker
        return
    async with trio_asyncio.open_loop():
        connect = trio_asyncio.aio_as_trio(nats.connect)
        client = await connect(url, inbox_prefix=options.inbox_prefix)
        rest = ConnectOptions(
            jetstream_domain=options.jetstream_domain, jetstream_prefix=options.jetstream_prefix
        )
        async with open_broker(client, rest) as broker:
            yield broker
        await trio_asyncio.aio_as_trio(client.close)()


@asynccontextmanager
async def restricted(tmp_path: Path, permissions: str) -> AsyncIterator[Server]:
    """Run a server on which nobody may do some things."""
    config = tmp_path / "server.conf"
    config.write_text(
        f"accounts {{ A: {{ jetstream: enabled\n"
        f"users: [{{ user: a, password: a, permissions: {{ {permissions} }} }}] }} }}\n"
        "no_auth_user: a\n"
    )
    async with Server(config=config) as server:
        yield server


WAYS = ["fast", "public", "borrowed"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_user_who_may_not_hear_every_answer_has_inboxes_of_his_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    async with (
        restricted(tmp_path, 'subscribe: { deny: ["_INBOX.>"] }') as server,
        connected(way, server.url, OTHER_INBOX, monkeypatch) as broker,
    ):
        await all_that_has_an_answer(broker)


SHARED = ["$JS.API.>", "$KV.>", "$JS.ACK.>", "sx.>", "qx.>"]
NAMED = {"$JS.API.>": "engine.api.>", "$KV.>": "engine.api.$KV.>"}


@pytest.mark.parametrize("way", WAYS)
async def test_the_api_of_another_account_has_another_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    config = tmp_path / "server.conf"
    exports = [{"service": subject, "response_type": "stream"} for subject in SHARED]
    imports = [
        {"service": {"account": "E", "subject": subject}, "to": NAMED.get(subject, subject)}
        for subject in SHARED
    ]
    engine = {"jetstream": "enabled", "exports": exports}
    users = {"users": [{"user": "a", "password": "a"}], "imports": imports}
    config.write_text(json.dumps({"accounts": {"E": engine, "A": users}, "no_auth_user": "a"}))
    async with (
        Server(config=config) as server,
        connected(way, server.url, OTHER_API, monkeypatch) as broker,
    ):
        await all_that_has_an_answer(broker)


@asynccontextmanager
async def leaf_of_a_hub(tmp_path: Path) -> AsyncIterator[tuple[Server, Server]]:
    """Run a server, and a leaf node of it that has JetStream as well."""
    hub_conf, leaf_conf = tmp_path / "hub.conf", tmp_path / "leaf.conf"
    hub_conf.write_text('jetstream { domain: hub }\nleafnodes { listen: "127.0.0.1:-1" }\n')
    async with Server(config=hub_conf) as hub:
        found = re.search(r"leafnode connections on (\S+)", hub.log)
        assert found is not None
        leaf_conf.write_text(
            "server_name: leaf\njetstream { domain: leaf }\n"
            f'leafnodes {{ remotes: [{{ url: "nats://{found[1]}" }}] }}\n'
        )
        async with Server(config=leaf_conf) as leaf:
            await joined(leaf.url)
            yield hub, leaf


async def joined(url: str) -> None:
    """Wait until a leaf node knows its hub."""
    with trio.fail_after(PATIENCE):
        async with open_broker(url, DOMAIN) as broker:
            while True:
                try:
                    await broker.has_stream("X", deadline=trio.current_time() + PATIENCE)
                except Missing:
                    continue
                return


@pytest.mark.parametrize("way", WAYS)
async def test_the_engines_domain_is_reached_over_a_leaf_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    async with (
        leaf_of_a_hub(tmp_path) as (_, leaf),
        connected(way, leaf.url, DOMAIN, monkeypatch) as broker,
    ):
        await all_that_has_an_answer(broker)


async def test_a_worker_on_a_leaf_node_serves_the_engine_of_its_hub(tmp_path: Path) -> None:
    workflow = Workflow("w")
    workflow.step("s", task="t")
    waits = trio.Event()
    async with leaf_of_a_hub(tmp_path) as (hub, leaf), LocalEngine(hub.url):
        worker = Worker(leaf.url, options=DOMAIN)

        @worker.handle("t")
        async def handler(ctx: TaskContext) -> str:
            await ctx.checkpoint("saved")
            waits.set()
            return (await ctx.wait_for_signal("go")).decode()

        async with worker, Client(leaf.url, DOMAIN) as client, Client(hub.url) as other:
            await client.register(workflow)
            run = await client.start("w", {})
            with trio.fail_after(PATIENCE):
                await waits.wait()
                await other.run(run.id).signal("go", "now")
                assert await run.output() == '"now"'


@pytest.mark.parametrize(
    "options",
    [
        {"inbox_prefix": "_MINE.>"},
        {"inbox_prefix": ""},
        {"jetstream_domain": "a b"},
        {"jetstream_prefix": "$JS.API."},
        {"jetstream_domain": "hub", "jetstream_prefix": "engine.api"},
    ],
)
def test_what_no_subject_begins_with_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=next(iter(options))):
        ConnectOptions(**options)  # type: ignore[arg-type]  # all are str


async def test_who_may_not_hear_answers_is_told_of_the_option(tmp_path: Path) -> None:
    async with restricted(tmp_path, 'subscribe: { deny: ["_INBOX.>"] }') as server:
        with pytest.raises(ConnectError, match=r"_INBOX.*inbox_prefix"):
            async with open_broker(server.url):
                pass


async def test_a_client_that_does_not_hear_itself_is_refused_by_name(nats_server: Server) -> None:
    async with trio_asyncio.open_loop():
        connect = trio_asyncio.aio_as_trio(nats.connect)
        client = await connect(nats_server.url, no_echo=True)
        with pytest.raises(UsageError, match="no_echo"):
            async with open_broker(client):
                pass
        await trio_asyncio.aio_as_trio(client.close)()


async def test_a_client_of_the_users_takes_no_other_option(nats_server: Server) -> None:
    async with trio_asyncio.open_loop():
        client = await trio_asyncio.aio_as_trio(nats.connect)(nats_server.url)
        with pytest.raises(UsageError, match="its own options"):
            async with open_broker(client, OTHER_INBOX):
                pass
        await trio_asyncio.aio_as_trio(client.close)()


@pytest.mark.parametrize("way", WAYS)
async def test_what_the_server_does_not_let_us_do_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    denied = '"Secret.>", "$JS.API.STREAM.INFO.>"'
    permissions = f'publish: {{ deny: [{denied}] }}, subscribe: {{ deny: ["hidden.>"] }}'
    async with (
        restricted(tmp_path, permissions) as server,
        connected(way, server.url, ConnectOptions(), monkeypatch) as broker,
    ):
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "Secret.a": lambda: broker.request("Secret.a", b"", timeout=2),
            "Secret.b": lambda: broker.store("Secret.b", b"", deadline=trio.current_time() + 2),
            "$JS.API.STREAM.INFO.S": lambda: broker.ensure_stream(
                StreamSpec(name="S", subjects=("s",)), deadline=trio.current_time() + 2
            ),
        }
        for subject, call in calls.items():
            with pytest.raises(NotStored, match=re.escape(f"publish to '{subject}'")):
                await call()
        async with broker.listen("hidden.x", lambda _: None):
            pass

    assert caplog.text.count('publish to "secret.a"') >= 1
    assert way == "borrowed" or caplog.text.count("hidden.x") >= 1
