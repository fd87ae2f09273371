"""One task message, and the answers to it."""

from collections.abc import Mapping
from typing import final

import trio

from trio_dagnats.transport.nats.frames import Frame, decode_ack
from trio_dagnats.transport.nats.link import Link
from trio_dagnats.transport.nats.requests import Lost
from trio_dagnats.transport.port import FOREVER
from trio_dagnats.wire.text import NS


@final
class NatsDelivery:
    """See ``port.Delivery``."""

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
        """See the port."""
        body = b'-NAK {"delay":%d}' % round(delay * NS) if delay > 0 else b"-NAK"
        self._answer(body, not_after)

    def term(self, *, not_after: float = FOREVER) -> None:
        """See the port."""
        self._answer(b"+TERM", not_after)

    async def renew(self, *, deadline: float) -> float:
        """See the port."""
        if self._answered:
            await trio.lowlevel.checkpoint()
            return trio.current_time()
        while True:
            frame = Frame(self._answer_to, b"+WPI", not_after=deadline)
            try:
                await self._link.requests.ask(frame, deadline=deadline)
            except Lost:  # a new send needs a new time: the old one may never have arrived
                continue
            return frame.sent_at

    def forget(self) -> None:
        """See the port."""
        if not self._answered:
            self._answered = True
            self._link.active -= 1

    def _answer(self, body: bytes, not_after: float) -> None:
        if self._answered:
            return
        self._answered = True
        self._link.active -= 1
        self._link.outbox.put(Frame(self._answer_to, body, not_after=not_after))
