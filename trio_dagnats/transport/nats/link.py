"""What a connection gives to the parts above it, whichever path its bytes take."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import Protocol

import trio

from trio_dagnats.transport.nats.frames import Frame
from trio_dagnats.transport.nats.outbox import Outbox, Writer
from trio_dagnats.transport.nats.parsing import acknowledgements
from trio_dagnats.transport.nats.requests import Lost, Requests
from trio_dagnats.transport.nats.silence import Silence
from trio_dagnats.transport.nats.subscriptions import Acks, OnIncoming, Subscription, Subscriptions
from trio_dagnats.transport.options import INBOX, JETSTREAM_API

BARRIER_PATIENCE = 5.0


def _nothing() -> None:
    """Take news that nobody wants."""


class Path(Writer, Protocol):
    """How subscriptions and frames reach the server: by our own bytes, or by nats-py's calls."""

    @property
    def max_payload(self) -> int:
        """What the server said it takes."""
        ...

    async def subscribe(self, subscription: Subscription) -> None:
        """Tell the server of a subscription; after a lost connection it is told again."""
        ...

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription on the server; what is on its way is still delivered."""
        ...

    async def barrier(self) -> None:
        """Return when the server has processed all that was sent before.

        Raises:
            NotStored: no answer in time.
        """
        ...

    def renew(self) -> None:
        """End this connection, so that another one is made; if that is ours to do."""
        ...


class Link:
    """A connection: its path, its outbox, its requests and its subscriptions.

    Args:
        make_path: makes the path for this link.
        abort_after: seconds after which a dead connection is aborted.
        inbox_prefix: how the subjects of answers begin.
        api: how the subjects of the JetStream API begin.

    Attributes:
        api: the same.
        now: reads trio's clock, at half the price of asking trio for it.
        active: deliveries in work.
        echoed_at: trio time at which the last echo was asked for.
        silence: what is known of pulls that nobody answers.
        over: set once the connection cannot be used any more, or is of no use.
        why_over: the reason then.
        on_closed: called when the connection has ended for good.
    """

    def __init__(
        self,
        make_path: "Callable[[Link], Path]",
        abort_after: float,
        inbox_prefix: str = INBOX,
        api: str = JETSTREAM_API,
    ) -> None:
        self.abort_after = abort_after
        self.now = trio.lowlevel.current_clock().current_time
        self.active = 0
        self.echoed_at = 0.0
        self.over = trio.Event()
        self.why_over = ""
        self.on_closed: Callable[[], None] = _nothing
        self.subscriptions = Subscriptions()
        self.path = make_path(self)
        self.outbox = Outbox(self.path, lambda: self.active)
        self._inbox_prefix = inbox_prefix
        self.api = api
        self.requests = Requests(self.outbox, self.new_inbox())
        self.silence = Silence(self.path.renew, self.give_up)

    async def open(self, nursery: trio.Nursery) -> None:
        """Start the tasks that move frames, and open the inbox for answers."""
        nursery.start_soon(self.outbox.run)
        nursery.start_soon(self.requests.sweep)
        inbox = self.subscriptions.add(self.requests.subject, self.requests.answered)
        match = acknowledgements(self.requests.inbox, inbox.sid)
        self.subscriptions.acks = Acks(match, self.requests.acknowledged)
        await self.path.subscribe(inbox)

    def new_inbox(self) -> str:
        """Return a subject for answers that nobody else has."""
        return f"{self._inbox_prefix}.{token_hex(11)}"

    def reconnected(self) -> None:
        """Send again what was in flight, and tell listeners that they may have missed something.

        Called by the path when the server has all subscriptions again. In this order: what was in
        flight stands before all that is queued, so a store that was begun earlier arrives earlier;
        what a listener or an intake asks for anew goes behind it.
        """
        self.requests.reconnected()
        for subscription in self.subscriptions.all():
            subscription.missed()
        self.outbox.wake()

    def give_up(self, why: str) -> None:
        """End the block that uses the connection; the first reason stays."""
        if not self.over.is_set():
            self.why_over = why
            self.over.set()

    def closed(self, why: str) -> None:
        """Take the news that the connection has ended for good: no answer will come any more."""
        self.give_up(why)
        self.on_closed()
        self.requests.over = True
        self.outbox.clear()

    async def echo(self, deadline: float) -> None:
        """Send a message to ourselves: it comes back when all before it has been processed.

        Raises:
            NotStored: it did not come back in time.
        """
        self.echoed_at = trio.current_time()
        while True:
            try:
                await self.requests.ask(Frame("", b""), deadline=deadline)
            except Lost:
                continue
            return

    @asynccontextmanager
    async def subscribed(
        self,
        subject: str,
        deliver: OnIncoming,
        *,
        queue: str = "",
        gap: Callable[[], None] | None = None,
    ) -> AsyncIterator[Subscription]:
        """Subscribe for the length of a block; the server has it when the block begins."""
        subscription = self.subscriptions.add(subject, deliver, queue=queue, gap=gap)
        try:
            await self.path.subscribe(subscription)
            await self.path.barrier()
            yield subscription
        finally:
            self.subscriptions.remove(subscription)
            with trio.CancelScope(shield=True, deadline=trio.current_time() + BARRIER_PATIENCE):
                await self.path.unsubscribe(subscription)


class Holder(Protocol):
    """What keeps a connection.

    Attributes:
        ready: set once it can be used.
    """

    ready: trio.Event

    async def run(self) -> None:
        """Do the connection's work until :meth:`leave`, shielded from the caller."""
        ...

    async def watch(self) -> None:
        """Wait until the connection has ended for good, if ever.

        Raises:
            ConnectError: it has.
        """
        ...

    def leave(self) -> None:
        """End :meth:`run`."""
        ...


@asynccontextmanager
async def keep_open(holder: Holder) -> AsyncIterator[None]:
    """Keep a connection for the length of a block, which ends if the connection does.

    Its work goes on until the block's body has ended: what that still asks for in its clean-up has
    a deadline, which is kept there.
    """
    async with trio.open_nursery() as nursery:
        nursery.start_soon(holder.run)
        try:
            # Not ``nursery.start``: cancelled in there, nobody could end the shielded task.
            await holder.ready.wait()
            async with trio.open_nursery() as watched:
                watched.start_soon(holder.watch)
                yield
                watched.cancel_scope.cancel()
        finally:
            holder.leave()
