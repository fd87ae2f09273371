"""The public path: a client that the user connected, used as it is and never closed.

Its options and callbacks stay untouched (rule D12), so a reconnect is noticed by looking at its
counters, and frames cross the border to asyncio once per batch, through ``publish``.

Also the way out for a connection of our own where the hooks do not fit (``connection``). What is
different from the fast path:

======================  ===================================  ===============================
what                    here                                 ``own_path``
======================  ===================================  ===============================
a frame                 ``publish``, one crossing a batch    bytes to the socket
a message               nats-py's ``Msg`` and callback       taken in the parser
a reconnect             seen within 0.25 s, by a counter     told by a callback
subscriptions           replayed by nats-py                  written again by us
their end               ``drain``: kept until the PONG       a line
a dead connection       as the client's owner has set it     aborted after 35 s
======================  ===================================  ===============================

Because nobody here knows when a dead connection dies, ``abort_after`` is ``FOREVER``: a worker on
this path stores every outcome with a condition. The throughput is about a third (design 5).
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import final

import nats.errors
import trio
import trio.lowlevel
import trio_asyncio
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.errors import ConnectionClosedError, ConnectionDrainingError

from trio_dagnats.errors import ConnectError, UsageError
from trio_dagnats.logs import Log
from trio_dagnats.transport.nats.broker import NatsBroker
from trio_dagnats.transport.nats.frames import Frame, Incoming, decode_headers
from trio_dagnats.transport.nats.link import BARRIER_PATIENCE, Link, keep_open
from trio_dagnats.transport.nats.subscriptions import Subscription
from trio_dagnats.transport.port import FOREVER, NO_HEADERS

log = Log("trio_dagnats.transport")

LOOK = 0.25
"""Seconds between two looks at whether the client has reconnected."""
STATUS, DESCRIPTION = "Status", "Description"


@asynccontextmanager
async def borrow(client: Client, api: str) -> AsyncIterator[NatsBroker]:
    """Use a connected client for the length of a block; see ``open_broker``.

    The client belongs to the caller: after the block it is as it was, but for what was sent. It
    must live in the trio-asyncio loop of the task that calls this, for its futures belong there.
    Its prefix of inboxes is used as it is; one with ``no_echo`` cannot hear us.

    Args:
        client: connected.
        api: how the subjects of the JetStream API begin.
    """
    if not client.is_connected:
        raise UsageError("the nats-py client is not connected: await its connect() first")
    loop = trio_asyncio.current_loop.get()
    if loop is None:
        raise UsageError(
            "a connected client needs the trio-asyncio loop that it lives in: give it to the "
            "worker inside that `async with trio_asyncio.open_loop()`"
        )
    if client.options.get("no_echo"):
        raise UsageError(
            "the nats-py client was connected with no_echo=True, but confirmations are messages to "
            "ourselves: connect it without, or give a URL"
        )
    inbox_prefix = client.new_inbox().rpartition(".")[0]
    link = Link(partial(BorrowedPath, client, loop), FOREVER, inbox_prefix, api)
    assert isinstance(link.path, BorrowedPath)
    async with keep_open(_Holder(link.path, link)):
        yield NatsBroker(link)


@final
class _Holder:
    """The tasks of a borrowed connection, shielded until the block's body has ended.

    Args:
        path: the path.
        link: the link that it belongs to.

    Attributes:
        ready: set when the inbox for answers is subscribed to; see ``link.Holder``. No echo is
            waited for: the caller's own client has proved itself by being connected.
    """

    def __init__(self, path: "BorrowedPath", link: Link) -> None:
        self._path = path
        self._link = link
        self._scope = trio.CancelScope(shield=True)
        self.ready = trio.Event()

    def leave(self) -> None:
        """End the tasks; the client stays connected."""
        self._scope.cancel()

    async def watch(self) -> None:
        """See ``link.Holder``."""
        await self._link.over.wait()
        raise ConnectError(f"the nats-py client cannot be used any more: {self._link.why_over}")

    async def run(self) -> None:
        """Move frames and watch for reconnects, until :meth:`leave`."""
        with self._scope:
            try:
                async with trio.open_nursery() as nursery:
                    await self._link.open(nursery)
                    nursery.start_soon(self._path.watch, self._link)
                    self.ready.set()
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + BARRIER_PATIENCE):
                    await self._path.end(self._link)


@final
class BorrowedPath:
    """Sends and subscribes by nats-py's public calls; see ``link.Path``.

    Args:
        client: the client.
        loop: the loop that it lives in.
        link: the connection that this is the path of.
    """

    def __init__(self, client: Client, loop: trio_asyncio.TrioEventLoop, link: Link) -> None:
        self._client = client
        self._loop = loop
        self._link = link
        self._theirs: dict[int, NatsSubscription] = {}
        self._reconnects = int(client.stats["reconnects"])

    @property
    def writable(self) -> bool:
        """Whether the client is connected."""
        return bool(self._client.is_connected)

    @property
    def max_payload(self) -> int:
        """What the server said it takes."""
        return int(self._client.max_payload)

    @property
    def unsent(self) -> int:
        """Bytes that the client has not written yet."""
        return int(self._client.pending_data_size)

    async def write(self, frames: Sequence[Frame]) -> None:
        """Publish all frames in one crossing to asyncio.

        A batch that fails is logged and gone: what wants an answer is sent again by the table of
        requests, and what wants none (an answer to a delivery, a core message) may be lost on any
        connection.
        """

        async def publish() -> None:
            for frame in frames:
                headers = decode_headers(frame.head)[2] if frame.head else None
                await self._client.publish(frame.subject, frame.body, frame.reply, headers)

        try:
            with _unbroken():
                await trio_asyncio.aio_as_trio(publish, loop=self._loop)()
        except (nats.errors.Error, OSError) as error:  # requests are sent again after a reconnect
            log.warning("a batch of %d messages was not sent: %s", len(frames), error)

    def write_at_once(self, frame: Frame) -> bool:  # noqa: ARG002 - the protocol's signature
        """Say no: nats-py's publish may have to wait."""
        return False

    async def subscribe(self, subscription: Subscription) -> None:
        """Subscribe through the client, which replays it after a reconnect by itself.

        Without its bounds on waiting messages: one that it drops as a "slow consumer" would be a
        task lost for a whole ``ack_wait`` (notes A5). What waits is bounded by credits.
        """

        async def deliver(message: Msg) -> None:
            subscription.take(_incoming(message))

        subscribe = trio_asyncio.aio_as_trio(self._client.subscribe, loop=self._loop)
        try:
            with _unbroken():
                self._theirs[subscription.sid] = await subscribe(
                    subscription.subject,
                    subscription.queue,
                    cb=deliver,
                    pending_msgs_limit=0,
                    pending_bytes_limit=0,
                )
        except (ConnectionClosedError, ConnectionDrainingError):  # as :meth:`watch` notices
            log.debug("not subscribed to %s: the client is closed", subscription.subject)

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Drain the subscription: it is kept until the server's PONG, so nothing is lost."""
        theirs = self._theirs.pop(subscription.sid, None)
        if theirs is None:
            return
        # One that is not ended on a lost connection would be replayed after the reconnect.
        end = theirs.drain if self.writable else theirs.unsubscribe
        try:
            with _unbroken():
                await trio_asyncio.aio_as_trio(end, loop=self._loop)()
        except (nats.errors.Error, OSError) as error:
            log.debug("unsubscribing from %s: %s", subscription.subject, error)

    async def barrier(self) -> None:
        """Wait for an echo of our own, not for a flush, which must not be cancelled."""
        await self._link.echo(trio.current_time() + BARRIER_PATIENCE)

    async def watch(self, link: Link) -> None:
        """Notice reconnects of the client, until its end.

        By a counter, because its callbacks belong to its owner. A loss and a return between two
        looks is noticed all the same; while it lasts, ``writable`` holds the outbox back. One that
        is being drained has ended for us: it subscribes to nothing any more.
        """
        while not (self._client.is_closed or self._client.is_draining):
            await trio.sleep(LOOK)
            if self._client.last_error is not None:  # of several since the last look the newest
                link.requests.heard_refusal(str(self._client.last_error))
            reconnects = int(self._client.stats["reconnects"])
            if reconnects != self._reconnects and self.writable:
                self._reconnects = reconnects
                link.reconnected()
        link.closed("it was closed or drained while it was in use")

    def renew(self) -> None:
        """Do nothing: the client, and when it connects, are its owner's."""

    async def end(self, link: Link) -> None:
        """Send what is queued and end our subscriptions; the client stays as it was."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.outbox.run)
            while len(link.outbox) and self.writable:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        for subscription in link.subscriptions.all():
            await self.unsubscribe(subscription)


def _unbroken() -> trio.CancelScope:
    """Shield a call for a moment: nats-py does not survive it when some are cancelled halfway.

    A subscription stays, a batch is sent in part, and the PONG for a flush that nobody awaits any
    more ends the client's read loop.
    """
    return trio.CancelScope(shield=True, deadline=trio.current_time() + BARRIER_PATIENCE)


def _incoming(message: Msg) -> Incoming:
    headers = message.headers
    if not headers:
        return Incoming(message.subject, message.reply, message.data)
    # nats-py puts members of a str enum among the names: str() would give "Header.DESCRIPTION".
    fields = {str.__str__(name): str(value) for name, value in headers.items()}
    status, note = fields.pop(STATUS, ""), fields.pop(DESCRIPTION, "")
    fields = fields or dict(NO_HEADERS)
    return Incoming(message.subject, message.reply, message.data, status, note, fields)
