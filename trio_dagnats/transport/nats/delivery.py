"""One task message, and the answers to it.

::

    delivered ──ack, nak, term──> answered: one frame queued, sent unless ``not_after`` passes first
        │
        ├──forget──────────────> answered: nothing is ever sent; the lease runs out on the server
        │
        └──renew (any number)──> still open; the lease begins anew at the *send* of the ``+WPI``

``answered`` is final: a second answer is dropped here. The server would take it, and a stale
``+ACK`` removes the message under whoever holds it by then (contract 14).

Answered by the worker's ``execution``, by the table of an attempt's life; by its ``intake`` where
no attempt begins; by the local engine, for which a NAK with a delay is a timer. Renewed by the
worker's ``attempts.upkeep`` alone.
"""

from collections.abc import Mapping
from typing import final

from trio_dagnats.transport.nats.frames import Frame, decode_ack
from trio_dagnats.transport.nats.link import Link
from trio_dagnats.transport.nats.requests import Lost
from trio_dagnats.transport.port import FOREVER
from trio_dagnats.wire.text import NS


@final
class NatsDelivery:
    """See ``port.Delivery``.

    Slots and no dataclass, for one is made for every task. While it is open it counts in
    ``link.active``, by which the outbox decides whether a pause between writes pays.

    Args:
        link: the connection that it came on; answers go out there even after a reconnect, because
            an ack subject is not tied to a connection.
        subject: where the task was published.
        reply: the server's ack subject, which also holds the counts (``frames.decode_ack``).
        body: the bytes.
        headers: its headers, without a status.
        received_at: trio time of its arrival.

    Raises:
        ValueError: ``reply`` is no ack subject, so this is no delivery of a consumer. The parser
            logs it; the message is left to its lease.
    """

    __slots__ = (
        "_answer_to",
        "_answered",
        "_link",
        "body",
        "deliveries",
        "headers",
        "published_ns",
        "received_at",
        "sent_after",
        "stream_sequence",
        "subject",
    )

    subject: str
    body: bytes
    headers: Mapping[str, str]
    deliveries: int
    stream_sequence: int
    published_ns: int
    received_at: float
    sent_after: float

    def __init__(
        self,
        link: Link,
        subject: str,
        reply: str,
        body: bytes,
        headers: Mapping[str, str],
        received_at: float,
    ) -> None:
        self._link = link
        self._answer_to = reply
        self._answered = False
        self.subject = subject
        self.body = body
        self.headers = headers
        self.deliveries, self.stream_sequence, self.published_ns = decode_ack(reply)
        self.received_at = received_at
        self.sent_after = link.requests.contact
        link.active += 1

    def ack(self, *, not_after: float = FOREVER) -> None:
        """See the port."""
        self._answer(b"+ACK", not_after)

    def nak(self, delay: float = 0.0, *, not_after: float = FOREVER) -> None:
        """See the port; the delay goes out in nanoseconds, and none at all is the bare word."""
        body = b'-NAK {"delay":%d}' % round(delay * NS) if delay > 0 else b"-NAK"
        self._answer(body, not_after)

    def term(self, *, not_after: float = FOREVER) -> None:
        """See the port."""
        self._answer(b"+TERM", not_after)

    async def renew(self, *, deadline: float) -> float:
        """See the port.

        Each send is a request of its own that is not sent again by itself. An answer to the second
        of two sends would say nothing about the first, and the lease may only be counted from a
        send that is known to have arrived.

        Cancelled, the renewal may or may not have reached the server: the caller goes on with the
        lease that it had, which is the shorter of the two.
        """
        while True:
            frame = Frame(self._answer_to, b"+WPI", not_after=deadline)
            try:
                await self._link.requests.ask(frame, deadline=deadline)
            except Lost:  # a new send needs a new time: the old one may never have arrived
                continue
            return frame.sent_at

    def forget(self) -> None:
        """See the port; after an answer it does nothing."""
        if not self._answered:
            self._answered = True
            self._link.active -= 1

    def _answer(self, body: bytes, not_after: float) -> None:
        """Queue the one answer; never waits, so a handler's unwinding scope may call it.

        Not confirmed: a lost ``+ACK`` costs a redelivery, and that finds the outcome in the
        history (rule D7).
        """
        if self._answered:
            return
        self._answered = True
        self._link.active -= 1
        self._link.outbox.put(Frame(self._answer_to, body, not_after=not_after))
