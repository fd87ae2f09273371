"""Every private name of nats-py that we touch, and the self-check that says whether they fit.

Hooks make the hot path: messages of our own subscriptions are taken in the parser (``_ps``), or at
``_process_msg`` when they came in pieces, before nats-py builds objects and queues for them; frames
are written to ``_transport`` directly.
Where they do not do what we know, ``connection`` uses the public path instead (rule D15).

=========================  ====================================================================
private name               why we touch it
=========================  ====================================================================
``_ps``                    a parser that takes our messages before nats-py makes objects of them
``_process_msg``           those that came in pieces, which nats-py has put together
``_transport``             frames go to its writer; its end is bounded, and may be a reset
``_io_writer`` and kin     the socket: to write, to see what it has not taken, to reset it; and one
                           that we have connected is put there
``_connect_command``       the moment in which TLS is up, or is found to be missing
``_connect_to_server``     each server gets a share of the time to connect, looked up in trio
``_server_pool``           how many servers share it
``_process_connect_init``  a greeting that cannot be read, or in time, shall be tried again after
``_read_loop``             an exception that it does not know would end it in silence
``_process_op_err``        how nats-py is told that it must reconnect
``_main_loop``             of trio-asyncio: Ctrl-C in there would hang the process
=========================  ====================================================================

The way of the bytes that come in::

    socket ──> asyncio's protocol ──> received ──> FastParser.take ──> routes     nearly all
                                         │ nats-py's buffer is not empty, or not ours
                                         └──> nats-py's reader ──> FastParser.parse ──> nats-py
"""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import cast

import nats.errors
import trio
from nats.aio.client import DEFAULT_BUFFER_SIZE, Client, Srv
from nats.aio.transport import TcpTransport
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser
from trio_asyncio import trio_as_aio
from trio_asyncio._loop import TrioEventLoop

from trio_dagnats.transport.nats.parsing import first_message, incoming, take_messages
from trio_dagnats.transport.nats.routes import FIRST_SID, Routes
from trio_dagnats.transport.nats_py.dialling import Dialler, Name
from trio_dagnats.transport.options import DEFAULT_PORT

CLOSE_PATIENCE = 1.0
Take = Callable[[bytes], bytes]
"""Takes from the front of what came in what it can, and returns the rest."""


class PlainText(nats.errors.Error):
    """TLS was asked for, and this server has none."""

    def __str__(self) -> str:
        return "the server does not offer TLS; nothing was sent to it"


class DialledTcp(TcpTransport):
    """A TCP transport on connections that a :class:`Dialler` has opened."""

    async def take_over(self, sock: socket.socket) -> None:
        """Talk on a new connection, which is asyncio's from now on."""
        streams = await asyncio.open_connection(sock=sock, limit=DEFAULT_BUFFER_SIZE)
        self._bare_io_reader, self._bare_io_writer = self._io_reader, self._io_writer = streams

    def __bool__(self) -> bool:
        """Say yes always: nats-py replaces a transport that says no before it connects."""
        return True


class AbortingTcp(DialledTcp):
    """A TCP transport whose end is bounded (notes A5, rule D12).

    With unsent bytes in the socket, nats-py's own waits for minutes. A dead connection is reset,
    so that bytes still in the kernel die with it and cannot arrive after another worker's.
    """

    reset = True

    def __init__(self, take: Take) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # nats-py types this class in part
        self._take = take

    def listen_in(self) -> None:
        """Take our messages as they arrive: a wake-up of nats-py's reader costs two turns.

        Called for each connection when TLS is up, if there is any: what comes before may be
        anybody's, and is left to nats-py, which refuses or drops it. What the parser raises ends
        the connection: asyncio closes it, and gives the reason to nats-py's reader.
        """
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
        writer, bare = self._io_writer, self._bare_io_writer
        if writer is None or bare is None:
            return
        if self.reset:
            # Of the TCP transport itself: the one of TLS has no socket any more once it is closed.
            sock = bare.transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        else:
            writer.close()

    async def wait_closed(self) -> None:
        """Wait for the end, but not for long."""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(CLOSE_PATIENCE):
                await super().wait_closed()  # type: ignore[no-untyped-call]  # the same


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


class OddBytes(nats.errors.Error):
    """The server has greeted us with something that nats-py cannot read."""

    def __str__(self) -> str:
        return f"the server does not speak the NATS protocol: {self.__cause__!r}"


class SteadyClient(Client):
    """A client that reconnects whatever has ended nats-py's tasks, and dials through trio.

    It knows a few exceptions. All others, such as those of its own parser, end a task of it in
    silence: the connection is open, and nobody reads or mends it.

    Args:
        timeout: seconds in which every known server has its turn when one is looked for.
    """

    def __init__(self, timeout: float) -> None:
        super().__init__()
        self._dialler = Dialler(timeout)
        self._transport = DialledTcp()  # type: ignore[no-untyped-call]  # typed in part

    async def _connect_to_server(self, s: Srv) -> None:
        """Open the connection to one server; every loop of nats-py comes through here."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # It was cancelled, and something (``wait_for`` of Python 3.11, when what it waits for
            # came in that turn; nats-py's own ``except``) has swallowed that: nobody says it again.
            raise asyncio.CancelledError
        s.last_attempt = time.monotonic()
        assert isinstance(self._transport, DialledTcp)
        pool = map(_name, self._server_pool)
        with contextlib.ExitStack() as opened:  # a cancelled task does not get what it awaited
            sock = await trio_as_aio(self._dialler.dial)(_name(s), pool, opened)
            opened.pop_all()
        await self._transport.take_over(sock)

    async def _read_loop(self) -> None:
        """Read until the connection is lost; nothing is done if nats-py has seen that itself."""
        await super()._read_loop()
        await self._process_op_err(nats.errors.ProtocolError())

    def _connect_command(self) -> bytes:
        """Look at what the server has said of itself before anything is said to it."""
        if not isinstance(self.max_payload, int):
            raise TypeError(f"max_payload is {self.max_payload!r}")
        return super()._connect_command()

    async def _process_connect_init(self) -> None:
        """Greet the server; a failure is one that nats-py tries again after."""
        try:
            async with asyncio.timeout_at(self._dialler.ends):
                await super()._process_connect_init()
        except Exception as error:
            if self._transport is not None:
                # Else it is left to the collector, and its bytes are still taken.
                self._transport.close()  # type: ignore[no-untyped-call]  # typed in part
            if isinstance(error, OSError | nats.errors.Error):
                raise
            raise OddBytes from error


class HookedClient(SteadyClient):
    """A client that hands messages of our own subscriptions straight to their routes."""

    def __init__(self, routes: Routes, timeout: float = 10.0) -> None:
        super().__init__(timeout)
        self._routes = routes
        self._ps = self._fast = FastParser(self, routes)
        self._tcp = AbortingTcp(self._fast.take)
        self._transport = self._tcp

    def _connect_command(self) -> bytes:
        """Begin to talk: TLS is up, or none was asked for.

        No name and no password go out in the clear where it was: nats-py would send them.
        """
        server = self._current_server
        wanted = "tls" in self.options or (server is not None and server.uri.scheme == "tls")
        if wanted and not self._server_info.get("tls_required"):
            raise PlainText
        self._fast.reset()
        self._tcp.listen_in()
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


def _name(server: Srv) -> Name:
    return server.uri.hostname or "", server.uri.port or DEFAULT_PORT


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
        and hasattr(Client, "_read_loop")
        and hasattr(Client, "_process_op_err")
        and hasattr(Client, "_process_connect_init")
        and hasattr(Client, "_connect_to_server")
        and isinstance(vars(Client()).get("_ps"), Parser)
        and {"buf", "state"} <= vars(Parser()).keys()
        and hasattr(TcpTransport, "wait_closed")
        and {"_io_reader", "_io_writer", "_bare_io_writer"} <= vars(AbortingTcp(bytes)).keys()
    )
