"""Every private name of nats-py that we touch, and the self-check that says whether they fit.

Hooks make the hot path: messages of our own subscriptions are taken in the parser (``_ps``), or at
``_process_msg`` when they came in pieces, before nats-py builds objects and queues for them; frames
are written to ``_transport`` directly.
Where they do not do what we know, ``connection`` uses the public path instead (rule D15).
"""

import asyncio
import base64
import contextlib
import socket
import struct
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import cast

import nats.errors
import trio
from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser
from trio_asyncio._loop import TrioEventLoop

from trio_dagnats.errors import UsageError
from trio_dagnats.transport.key_files import read_key
from trio_dagnats.transport.nats.parsing import first_message, incoming, take_messages
from trio_dagnats.transport.nats.routes import FIRST_SID, Routes

CLOSE_PATIENCE = 1.0
Take = Callable[[bytes], bytes]
"""Takes from the front of what came in what it can, and returns the rest."""


class Complaint(nats.errors.Error):
    """What the server has said in a ``-ERR``."""


class NoLogin(nats.errors.Error):
    """There is nothing to log in with now: the file is gone, half written, or holds no key."""

    def __str__(self) -> str:
        return str(self.__cause__)


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


class OddBytes(nats.errors.Error):
    """The server has greeted us with something that nats-py cannot read."""

    def __str__(self) -> str:
        return f"the server does not speak the NATS protocol: {self.__cause__!r}"


def _nobody() -> None:
    """Take news that nobody wants."""


class SteadyClient(Client):
    """A client that reconnects whatever has ended nats-py's tasks, and logs in with what is new.

    It knows a few exceptions. All others, such as those of its own parser, end a task of it in
    silence: the connection is open, and nobody reads or mends it.

    Attributes:
        informed: called when the server has said something of itself later than at the greeting.
    """

    def __init__(self) -> None:
        super().__init__()
        self.informed: Callable[[], None] = _nobody

    async def _read_loop(self) -> None:
        """Read until the connection is lost; nothing is done if nats-py has seen that itself."""
        await super()._read_loop()
        await self._process_op_err(nats.errors.ProtocolError())

    async def _attempt_reconnect(self) -> None:
        """Try until it is connected; whatever one try raises, another one follows.

        A cancellation that nobody has asked for is taken by nats-py for its own end. Then the
        connection has ended, and says so.
        """
        mine = asyncio.current_task()
        while True:
            try:
                await super()._attempt_reconnect()
            except Exception as error:  # noqa: BLE001 - nobody else sees it; it is reported
                self._status = Client.RECONNECTING
                await self._error_cb(error)
                await asyncio.sleep(self.options["reconnect_time_wait"])
            else:
                break
        given_up = self._reconnection_task is mine and self._reconnection_task_future is not None
        if given_up and not self.is_closed and self._closed_cb is not None:
            await self._closed_cb()

    async def _process_err(self, err_msg: str) -> None:
        """Report what the server complains about, and nothing more.

        Where that is the end, the server closes the connection, and the reader notices it. nats-py
        would close it for good, for errors too after which the server goes on.
        """
        await self._error_cb(Complaint(err_msg.strip("'")))

    async def _process_info(
        self,
        info: dict[str, object],
        initial_connection: bool = False,  # noqa: FBT001, FBT002 - nats-py's signature
    ) -> None:
        """Take what the server says of itself later, as the limits of the account."""
        await super()._process_info(info, initial_connection)
        limit = info.get("max_payload")
        if not initial_connection and isinstance(limit, int):
            self._max_payload = limit
            self.informed()

    def _setup_nkeys_connect(self) -> None:
        """Read no file yet: that is done for each login."""

    def _take_key(self) -> None:
        """Read the file to log in with, once for a login: it may be another one by now.

        Half of an old and half of a new file would not fit together.
        """
        path = self._user_credentials or self._nkeys_seed
        if path is None:
            return
        try:
            key = read_key(Path(str(path)), jwt=self._user_credentials is not None)
        except UsageError as error:
            raise NoLogin from error
        import nkeys  # noqa: PLC0415 - loaded by those only who log in with it

        pair = nkeys.from_seed(bytearray(key.seed.encode()))

        def sign(nonce: str) -> bytes:
            return base64.b64encode(pair.sign(nonce.encode()))

        self._public_nkey = pair.public_key.decode()
        self._user_jwt_cb = key.jwt.encode if key.jwt else None
        self._signature_cb = sign

    def _connect_command(self) -> bytes:
        """Look at what the server has said of itself before anything is said to it."""
        if not isinstance(self.max_payload, int):
            raise TypeError(f"max_payload is {self.max_payload!r}")
        self._take_key()
        return super()._connect_command()

    async def _process_connect_init(self) -> None:
        """Greet the server; a failure is one that nats-py tries again after."""
        try:
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

    def __init__(self, routes: Routes) -> None:
        super().__init__()
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

    def cut(self) -> None:
        """End this connection by a reset; the reader notices it, and another one is made."""
        self._tcp.close()

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


_METHODS = (
    "_attempt_reconnect",
    "_close",
    "_connect_command",
    "_process_connect_init",
    "_process_err",
    "_process_info",
    "_process_msg",
    "_process_op_err",
    "_read_loop",
    "_setup_nkeys_connect",
)
_ATTRIBUTES = {
    "_closed_cb",
    "_max_payload",
    "_nkeys_seed",
    "_public_nkey",
    "_reconnection_task",
    "_reconnection_task_future",
    "_signature_cb",
    "_user_credentials",
    "_user_jwt_cb",
}


def hooks_fit() -> bool:
    """Say whether this nats-py still has the names that the hooks replace."""
    return (
        all(hasattr(Client, name) for name in _METHODS)
        and vars(Client()).keys() >= _ATTRIBUTES
        and isinstance(vars(Client()).get("_ps"), Parser)
        and {"buf", "state"} <= vars(Parser()).keys()
        and hasattr(TcpTransport, "wait_closed")
        and {"_io_reader", "_io_writer", "_bare_io_writer"} <= vars(AbortingTcp(bytes)).keys()
    )
