"""Bytes that are no protocol end their connection, never the worker: it reconnects and serves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from odd_bytes import CERTIFICATE, KEY, Injector, trusting

from trio_dagnats import ConnectOptions
from trio_dagnats.local import Server
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.nats.subscriptions import FIRST_SID
from trio_dagnats.transport.port import Broker, Message

SOON = 10.0
"""Seconds that only a failure takes; nats-py's pings find a deaf connection after 30."""
OURS = b"%d" % FIRST_SID
UNKNOWN = b"%d" % (FIRST_SID + 1000)
ODD_SIZES = [
    b"MSG a %b 9999999999\r\n" % OURS,
    b"MSG a %b b c 3\r\nabc\r\n" % OURS,
    b"HMSG a %b 9 3\r\nabc\r\n" % OURS,
]
"""Sizes that nats-py's parser lets pass."""
NOT_INFO = [b"INFO null\r\n", b"INFO []\r\n", b"INFO {\r\n", b'INFO {"connect_urls":5}\r\n']
NO_PROTOCOL = [
    *[b"MSG a %b %b\r\n" % (sid, s) for sid in (OURS, UNKNOWN) for s in (b"abc", b"-24", b"1_0")],
    b"HMSG a %b -1 3\r\nabc\r\n" % OURS,
    b"HMSG a %b x 3\r\nabc\r\n" % OURS,
    b"MSG a 1 abc\r\n",
    b"-ERR \r\n",
    b"-ERR '\xff'\r\n",
    b"what?\r\n",
    *NOT_INFO,
]


@asynccontextmanager
async def injecting(server: Server) -> AsyncIterator[Injector]:
    """Put odd bytes between a server and its clients, for the length of a block."""
    async with trio.open_nursery() as nursery:
        injector = Injector(server.port)
        await nursery.start(injector.run)
        yield injector
        nursery.cancel_scope.cancel()


class Echo:
    """Listens on a subject of its own; ``missed`` is set once the connection was lost and back."""

    def __init__(self) -> None:
        self.missed = trio.Event()
        self.came = trio.Event()

    def __call__(self, message: Message | None) -> None:
        (self.missed if message is None else self.came).set()


async def serves_again(broker: Broker, echo: Echo) -> None:
    """Wait until a connection was lost and is back, and brings messages again."""
    with trio.fail_after(SOON):
        await echo.missed.wait()
        await broker.publish("echo", b"")
        await echo.came.wait()


@pytest.mark.usefixtures("either_path")
@pytest.mark.parametrize("odd", NO_PROTOCOL)
async def test_what_is_no_protocol_is_a_reconnect(nats_server: Server, odd: bytes) -> None:
    await reconnects(nats_server, odd)


@pytest.mark.parametrize("odd", ODD_SIZES)
async def test_sizes_that_no_message_has_are_a_reconnect(nats_server: Server, odd: bytes) -> None:
    await reconnects(nats_server, odd)


async def reconnects(nats_server: Server, odd: bytes) -> None:
    """Put odd bytes on a connection, and wait until it is lost, back and brings messages."""
    echo = Echo()
    async with (
        injecting(nats_server) as injector,
        open_broker(injector.url) as broker,
        broker.listen("echo", echo),
    ):
        await injector.inject(odd)
        await serves_again(broker, echo)


@pytest.mark.usefixtures("either_path")
@pytest.mark.parametrize(
    "odd",
    [
        *NOT_INFO,
        b'INFO {"max_payload":"x"}\r\n',
        b'INFO {"connect_urls":["[::1"]}\r\n',
        b"INFO {}\r\n-ERR\r\n",
        b"INFO\r\n",
        b"what?\r\n",
        b"x" * 100_000,
    ],
    ids=lambda odd: repr(odd[:40]),
)
async def test_who_greets_oddly_is_tried_again(nats_server: Server, odd: bytes) -> None:
    echo = Echo()
    async with injecting(nats_server) as injector:
        injector.greetings.append(odd)
        async with open_broker(injector.url) as broker, broker.listen("echo", echo):
            injector.greetings.append(odd)
            await injector.inject(b"what?\r\n")
            await serves_again(broker, echo)


@pytest.mark.usefixtures("either_path")
async def test_a_server_that_speaks_tls_is_served_again_when_it_comes_back(tmp_path: Path) -> None:
    echo = Echo()
    config = tmp_path / "server.conf"
    config.write_text(f'tls {{ cert_file: "{CERTIFICATE}", key_file: "{KEY}" }}')
    options = ConnectOptions(tls=trusting())
    async with Server(config=config) as server:
        url = server.url.replace("nats:", "tls:")
        async with open_broker(url, options) as broker, broker.listen("echo", echo):
            server.kill()
            await trio.to_thread.run_sync(server.restart)
            await serves_again(broker, echo)
