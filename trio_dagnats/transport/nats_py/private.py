"""Every private name of nats-py that we touch, and the self-check that says whether they fit.

Those of its transport are used in ``tcp``, all others in here.

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
``_connect_command``       the moment in which TLS is up, or is found to be missing, and the file to
                           log in with is read
``_setup_nkeys_connect``   nats-py would read that file once, or for ever
``_signature_cb`` and kin  where the key of this login is put
``_process_err``           a complaint of the server is no end; where it is, the server closes
``_process_info``          limits of the account are told after the greeting
``_attempt_reconnect``     a try that raises what nats-py does not know is followed by another one
``_reconnection_task``     tells a cancellation that nobody wanted from an end that was asked for
``_connect_to_server``     each server gets a share of the time to connect, looked up in trio
``_server_pool``           how many servers share it
``_process_connect_init``  a greeting that cannot be read, or in time, shall be tried again after
``_read_loop``             an exception that it does not know would end it in silence
``_process_op_err``        how nats-py is told that it must reconnect
``_main_loop``             of trio-asyncio: Ctrl-C in there would hang the process
=========================  ====================================================================

The way of the bytes that come in::

    socket ──> asyncio's protocol ──> received ──> FastParser.take ──> subscriptions     nearly all
                                         │ nats-py's buffer is not empty, or not ours
                                         └──> nats-py's reader ──> FastParser.parse ──> nats-py
"""

import asyncio
import base64
import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import nats.errors
import trio
from nats.aio.client import Client, Srv
from nats.aio.transport import TcpTransport
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser
from trio_asyncio import trio_as_aio
from trio_asyncio._loop import TrioEventLoop

from trio_dagnats.errors import UsageError
from trio_dagnats.transport.key_files import read_key
from trio_dagnats.transport.nats.parsing import first_message, incoming, take_messages
from trio_dagnats.transport.nats.subscriptions import FIRST_SID, Subscriptions
from trio_dagnats.transport.nats_py.dialling import Dialler, Name
from trio_dagnats.transport.nats_py.refusals import Complaint, NoLogin, OddBytes, PlainText
from trio_dagnats.transport.nats_py.tcp import AbortingTcp, DialledTcp
from trio_dagnats.transport.options import DEFAULT_PORT


class FastParser(Parser):
    """A parser that takes whole messages of our own subscriptions without nats-py's objects.

    Whatever else is in the buffer (other messages, PING, half a message) is left to nats-py.
    """

    def __init__(self, client: Client, subscriptions: Subscriptions) -> None:
        super().__init__(client)
        self._routes = subscriptions
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
            subscription, message, data = first_message(data, self._routes)
            if subscription is not None:
                subscription.take(message)
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


def _nobody() -> None:
    """Take news that nobody wants."""


class SteadyClient(Client):
    """A client that reconnects whatever ends nats-py's tasks, dials in trio, and logs in anew.

    It knows a few exceptions. All others, such as those of its own parser, end a task of it in
    silence: the connection is open, and nobody reads or mends it.

    Args:
        timeout: seconds in which every known server has its turn when one is looked for.

    Attributes:
        informed: called when the server has said something of itself later than at the greeting.
    """

    def __init__(self, timeout: float) -> None:
        super().__init__()
        self._dialler = Dialler(timeout)
        self._transport = DialledTcp()  # type: ignore[no-untyped-call]  # typed in part
        self.informed: Callable[[], None] = _nobody

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
    """A client that hands messages of our own subscriptions straight to their subscriptions."""

    def __init__(self, subscriptions: Subscriptions, timeout: float = 10.0) -> None:
        super().__init__(timeout)
        self._routes = subscriptions
        self._ps = self._fast = FastParser(self, subscriptions)
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
        subscription = self._routes.find(sid)
        if subscription is not None:
            subscription.take(incoming(subject, reply or b"", headers or b"", data))

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


def _name(server: Srv) -> Name:
    return server.uri.hostname or "", server.uri.port or DEFAULT_PORT


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
    "_connect_to_server",
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
    "_server_pool",
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
