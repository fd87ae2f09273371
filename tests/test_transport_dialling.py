"""Servers that do not answer, names that are not found, and connects that are cancelled."""

import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from threading import Event
from typing import Any

import pytest
import trio
from odd_bytes import Injector

from trio_dagnats import ConnectOptions
from trio_dagnats.errors import ConnectError
from trio_dagnats.local import Server
from trio_dagnats.transport import open_broker

pytestmark = pytest.mark.usefixtures("either_path")

PATIENCE = 20.0
INFO = {"server_id": "x", "version": "2.11.0", "max_payload": 1_000_000, "headers": True}


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try servers in the order in which they are given."""
    monkeypatch.setattr("nats.aio.client.shuffle", lambda _servers: None)


@pytest.fixture
def newest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try the server last that was known first."""
    monkeypatch.setattr("nats.aio.client.shuffle", lambda servers: servers.append(servers.pop(0)))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], list[str]]]:
    """Names beside those that are found anyway, and what a lookup of each does."""
    known: dict[str, Callable[[], list[str]]] = {}
    ask = socket.getaddrinfo

    def found(host: str, port: int, *args: int, **kwargs: int) -> list[Any]:
        if host not in known:
            return ask(host, port, *args, **kwargs)
        if kwargs.get("flags", 0) & socket.AI_NUMERICHOST:
            raise socket.gaierror("a name is no address")
        return [entry for address in known[host]() for entry in ask(address, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    return known


@asynccontextmanager
async def silent(host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[int]:
    """Take connections, and say nothing."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(port, host=host)

        async def listen(stream: trio.SocketStream) -> None:
            with suppress(trio.BrokenResourceError):
                while await stream.receive_some():
                    pass

        nursery.start_soon(trio.serve_listeners, listen, [listener])
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def deaf() -> AsyncIterator[int]:
    """Hold a port on which no connection is ever taken."""
    with trio.socket.socket() as full:
        await full.bind(("127.0.0.1", 0))
        full.listen(0)
        where = full.getsockname()
        with trio.socket.socket() as first:
            await first.connect(where)
            yield where[1]


async def connects(urls: str | list[str], seconds: float) -> None:
    options = ConnectOptions(connect_timeout=seconds)
    with trio.fail_after(PATIENCE):
        async with open_broker(urls, options):
            pass


@pytest.mark.usefixtures("in_order")
@pytest.mark.parametrize("dead", [silent, deaf])
async def test_one_server_of_several_that_does_not_answer_gets_a_share_of_the_time(
    nats_server: Server, dead: Callable[[], Any]
) -> None:
    async with dead() as port:
        await connects([f"nats://127.0.0.1:{port}", nats_server.url], 4.0)


async def test_one_address_of_a_name_that_does_not_answer_gets_a_share_of_the_time(
    nats_server: Server, names: dict[str, Callable[[], list[str]]]
) -> None:
    names["several.test"] = lambda: ["127.0.0.9", "127.0.0.1"]
    async with silent("127.0.0.9", nats_server.port):
        await connects(f"nats://several.test:{nats_server.port}", 4.0)


@pytest.mark.usefixtures("in_order")
async def test_a_lookup_that_hangs_is_abandoned(
    nats_server: Server, names: dict[str, Callable[[], list[str]]]
) -> None:
    over = Event()

    def hang() -> list[str]:
        over.wait(PATIENCE)
        return ["127.0.0.1"]

    names["hangs.test"] = hang
    began = trio.current_time()
    try:
        await connects(["nats://hangs.test:4222", nats_server.url], 2.0)
        with pytest.raises(ConnectError, match="no answer"):
            await connects("nats://hangs.test:4222", 1.0)
        assert trio.current_time() - began < PATIENCE / 2
    finally:
        over.set()


@pytest.mark.usefixtures("newest_first")
async def test_a_reconnect_gives_addresses_that_do_not_answer_a_share_of_the_time(
    nats_server: Server,
) -> None:
    """Four of them, told by the server, are tried before one that does."""
    back = trio.Event()
    async with trio.open_nursery() as nursery, silent("0.0.0.0") as port:
        injector = Injector(nats_server.port)
        await nursery.start(injector.run)
        dead = [f"127.0.0.{number}:{port}" for number in range(1, 5)]
        told = json.dumps({**INFO, "connect_urls": dead}).encode()
        async with (
            open_broker(injector.url, ConnectOptions(connect_timeout=5)) as broker,
            broker.listen("x", lambda message: back.set() if message is None else None),
        ):
            await injector.inject(b"INFO " + told + b"\r\nwhat?\r\n")
            with trio.fail_after(12):
                await back.wait()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("greets", [True, False])
@pytest.mark.parametrize("turns", range(24))
async def test_a_connect_that_is_cancelled_ends(turns: int, *, greets: bool) -> None:
    """In whatever turn: it is cancelled once, and asyncio may swallow that."""
    accepted = 0

    async def serve(stream: trio.SocketStream) -> None:
        nonlocal accepted
        accepted += 1
        if greets or accepted > 1:
            await stream.send_all(b"INFO " + json.dumps(INFO).encode() + b"\r\n")
        if accepted > 1:  # it tries again: let it connect, and so end
            await stream.send_all(b"PONG\r\n")
        for _ in range(turns if accepted == 1 else 0):
            await trio.lowlevel.checkpoint()
        connecting.cancel()
        with suppress(trio.BrokenResourceError):
            while await stream.receive_some():
                pass

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        port = listener.socket.getsockname()[1]
        options = ConnectOptions(connect_timeout=1)
        with trio.CancelScope() as connecting:
            async with open_broker(f"nats://127.0.0.1:{port}", options):
                pass
        nursery.cancel_scope.cancel()

    assert accepted == 1
