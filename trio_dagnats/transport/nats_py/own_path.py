"""The fast path: our own bytes on the connection of a client that is ours."""

from collections.abc import Sequence
from typing import final

import trio

from trio_dagnats.transport.nats.frames import Frame, Line, encode
from trio_dagnats.transport.nats.link import BARRIER_PATIENCE, Link
from trio_dagnats.transport.nats.subscriptions import Subscription
from trio_dagnats.transport.nats_py.private import HookedClient


@final
class OwnPath:
    """Writes frames and subscriptions directly; see ``link.Path``.

    Args:
        client: our client.
        link: the connection that this is the path of.

    Attributes:
        writable: whether the connection is up.
        max_payload: what the server said it takes.
    """

    def __init__(self, client: HookedClient, link: Link) -> None:
        self._client = client
        self._link = link
        self.writable = False
        self.max_payload = 0
        client.informed = self.informed

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken yet."""
        return self._client.unsent()

    async def write(self, frames: Sequence[Frame]) -> None:
        """Write all frames at once."""
        self._client.write_now(encode(frames))

    def write_at_once(self, frame: Frame) -> bool:
        """Write one frame."""
        self._client.write_now(encode((frame,)))
        return True

    async def subscribe(self, subscription: Subscription) -> None:
        """Subscribe now, or with the others after the reconnect."""
        if self.writable:
            self._link.outbox.put(Line(subscription.sub()))

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Unsubscribe; a lost connection has forgotten it anyway."""
        if self.writable:
            self._link.outbox.put(Line(subscription.unsub()))

    async def barrier(self) -> None:
        """Wait for an echo of our own: everything before it has been processed."""
        await self._link.echo(trio.current_time() + BARRIER_PATIENCE)

    def renew(self) -> None:
        """End this connection; nats-py makes another one."""
        self._client.cut()

    def informed(self) -> None:
        """Take what the server says now: the limits of an account come after the login."""
        self.max_payload = self._client.max_payload

    def lost(self) -> None:
        """Stop writing."""
        self.writable = False

    def back(self) -> None:
        """Subscribe to everything again, in one write, then go on."""
        self._client.write_now(
            [b"".join(subscription.sub() for subscription in self._link.subscriptions.all())]
        )
        self.begin()
        self._link.reconnected()

    def begin(self) -> None:
        """Begin to write: the client is connected."""
        self.informed()
        self.writable = True
