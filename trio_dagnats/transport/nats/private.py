"""Every private name of nats-py that we touch, and the self-check that says whether they fit.

Hooks make the hot path: messages of our own subscriptions are taken in the parser (``_ps``), or at
``_process_msg`` when they came in pieces, before nats-py builds objects and queues for them; frames
are written to ``_transport`` directly.
Where they do not do what we know, ``connection`` uses the public path instead (rule D15).
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Callable, Iterable
from typing import cast
from urllib.parse import ParseResult

import nats.errors
import trio
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser
from trio_asyncio._loop import TrioEventLoop

from trio_dagnats.transport.nats.parsing import first_message, incoming, take_messages
from trio_dagnats.transport.nats.routes import FIRST_SID, Routes

CLOSE_PATIENCE = 1.0
Take = Callable[[bytes], bytes]
"""Takes from the front of what came in what it can, and returns the rest."""


class PlainText(nats.errors.Error):
    """TLS was asked for, and this server has none."""

    def __str__(self) -> str:
        return "the server does not offer TLS; nothing was sent to it"


class AbortingTcp(TcpTransport):
    """A TCP transport whose end is bounded (notes A5, rule D12).

    With unsent bytes in the socket, nats-py's own waits for minutes. A dead connection is reset,
    so that bytes still in the kernel die with it and cannot arrive after another worker's.
    """

    reset = True

    def __init__(self, take: Take) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # nats-py types this class in part
        self._take = take

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """Connect, and look at what comes in before nats-py does."""
        await super().connect(uri, buffer_size, connect_timeout)
        self._listen_in()

    async def connect_tls(
        self,
        uri: str | ParseResult,
        ssl_context: ssl.SSLContext,
        buffer_size: int,
        connect_timeout: int,
    ) -> None:
        """Go on with TLS, through another protocol object."""
        await super().connect_tls(uri, ssl_context, buffer_size, connect_timeout)
        self._listen_in()

    def _listen_in(self) -> None:
        """Take our messages as they arrive: a wake-up of nats-py's reader costs two turns."""
        writer, reader = self._io_writer, self._io_reader
        assert writer is not None
        assert reader is not None
        protocol = cast("asyncio.Protocol", writer.transport.get_protocol())
        feed = protocol.data_received

        def received(data: bytes) -> None:
            # What nats-py has not read yet comes first; unknown where asyncio has another reader.
            rest = data if vars(reader).get("_buffer", True) else self._take(data)
            if rest:
                feed(rest)

        protocol.data_received = received  # type: ignore[method-assign]  # of this one object

    @property
    def writer(self) -> asyncio.StreamWriter | None:
        """The stream's writer, None before the first connect."""
        return self._io_writer

    def close(self) -> None:
        """End the connection at once; by a reset unless it was drained before."""
        writer = self._io_writer
        if writer is None:
            return
        if self.reset:
            sock = writer.transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        else:
            writer.close()

    async def wait_closed(self) -> None:
        """Wait for the end, but not for long."""
        with contextlib.suppress(TimeoutError, OSError):
            closing = super().wait_closed()  # type: ignore[no-untyped-call]  # the same
            await asyncio.wait_for(closing, CLOSE_PATIENCE)

    def __bool__(self) -> bool:
        """Say yes always: nats-py replaces a transport that says no before it connects."""
        return True


class FastParser(Parser):
    """A parser that takes whole messages of our own subscriptions without nats-py's objects.

    Whatever else is in the buffer (other messages, PING, half a message) is left to nats-py.
    """

    def __init__(self, client: Client, routes: Routes) -> None:
        super().__init__(client)
        self._routes = routes
        self._parts: list[bytes] = []
        self._missing = 0

    def reset(self) -> None:
        """Begin a new connection."""
        super().reset()
        self._parts, self._missing = [], 0

    def take(self, data: bytes) -> bytes:
        """Take our messages from what has just come in; return what is left for nats-py.

        The beginning of a message of ours is kept until the rest of it is there.
        """
        if self._parts:
            self._parts.append(data)
            self._missing -= len(data)
            if self._missing > 0:
                return b""
            data, self._parts = b"".join(self._parts), []
            route, message, data = first_message(data, self._routes)
            if route is not None:
                route.take(message)
        if self.buf or self.state != AWAITING_CONTROL_LINE:
            return data
        taken, self._missing = take_messages(data, self._routes)
        rest = data[taken:]
        if not self._missing:
            return rest
        self._parts.append(rest)
        return b""

    async def parse(self, data: bytes = b"") -> None:
        """Take the bytes that nats-py has read."""
        self.buf.extend(data)
        if self.state == AWAITING_CONTROL_LINE:
            taken, _ = take_messages(bytes(self.buf), self._routes)
            if taken:
                del self.buf[:taken]
        if self.buf:
            await super().parse()


class HookedClient(Client):
    """A client that hands messages of our own subscriptions straight to their routes."""

    def __init__(self, routes: Routes) -> None:
        super().__init__()
        self._routes = routes
        self._ps = self._fast = FastParser(self, routes)
        self._tcp = AbortingTcp(self._fast.take)
        self._transport = self._tcp

    def _connect_command(self) -> bytes:
        """Send no name and no password in the clear where TLS was asked for: nats-py would."""
        server = self._current_server
        wanted = "tls" in self.options or (server is not None and server.uri.scheme == "tls")
        if wanted and not self._server_info.get("tls_required"):
            raise PlainText
        return super()._connect_command()

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        if sid < FIRST_SID:
            await super()._process_msg(sid, subject, reply, data, headers or b"")
            return
        route = self._routes.find(sid)
        if route is not None:
            route.take(incoming(subject, reply or b"", headers or b"", data))

    def write_now(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Write bytes to the socket, or to its buffer."""
        writer = self._tcp.writer
        if writer is not None and not writer.is_closing():
            for piece in pieces:
                writer.write(piece)

    def unsent(self) -> int:
        """Return how many bytes the socket has not taken yet."""
        writer = self._tcp.writer
        return writer.transport.get_write_buffer_size() if writer is not None else 0

    async def drop(self) -> None:
        """Close what a given-up connect has left open: nats-py leaves it to the collector."""
        self._tcp.close()
        for _ in range(2):  # the loop's turns in which a transport ends; its own wait can be broken
            await asyncio.sleep(0)

    def close_gently(self) -> None:
        """Let the last close be an ordinary one: everything was flushed before."""
        self._tcp.reset = False


def protect_loop() -> None:
    """Keep KeyboardInterrupt out of trio-asyncio's main task (rule D13).

    Raised in there it deadlocks the loop (trio-asyncio#118). Marks the function's code; harmless
    when done twice, and for loops that are not ours.
    """
    trio.lowlevel.enable_ki_protection(TrioEventLoop._main_loop)  # noqa: SLF001 - see above


def hooks_fit() -> bool:
    """Say whether this nats-py still has the names that the hooks replace."""
    return (
        hasattr(Client, "_process_msg")
        and hasattr(Client, "_connect_command")
        and isinstance(vars(Client()).get("_ps"), Parser)
        and {"buf", "state"} <= vars(Parser()).keys()
        and hasattr(TcpTransport, "wait_closed")
        and {"_io_reader", "_io_writer"} <= vars(AbortingTcp(bytes)).keys()
    )
