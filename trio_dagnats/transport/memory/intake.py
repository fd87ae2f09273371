"""Deliveries and intakes of the in-memory broker.

The connection's side of a consumer. Credits are counted here as on a real connection: a pull adds,
a delivery takes one, an end gives back, and a lost connection changes nothing until the line is
mended and all that are left are asked for at once. So what an intake's owner sees, and in which
order, is the same on both.

A difference that only tests see: bytes are never under way here, so a message arrives in the moment
in which it is sent (``sent_after`` is ``received_at``) and nothing can be too late. What can be
late is an answer, by ``Line.hold``.
"""

from collections.abc import Callable, Mapping
from typing import final

import trio

from trio_dagnats.transport.memory.consumers import Consumer, Pull
from trio_dagnats.transport.memory.line import Line
from trio_dagnats.transport.port import FOREVER, IntakeSink, PullEnd, Record
from trio_dagnats.transport.rules import callback_failed
from trio_dagnats.wire.text import NS


@final
class MemoryDelivery:
    """See ``port.Delivery``.

    Args:
        line: the connection; what is answered goes along it, and waits while it is cut.
        consumer: whose message it is.
        record: the message.
        deliveries: how often it was delivered, this time included.
    """

    subject: str
    body: bytes
    headers: Mapping[str, str]
    stream_sequence: int
    deliveries: int
    published_ns: int
    received_at: float
    sent_after: float

    def __init__(self, line: Line, consumer: Consumer, record: Record, deliveries: int) -> None:
        self._line = line
        self._consumer = consumer
        self._answered = False
        self.subject = record.subject
        self.body = record.body
        self.headers = record.headers
        self.stream_sequence = record.sequence
        self.deliveries = deliveries
        self.published_ns = record.time_ns
        self.received_at = self.sent_after = trio.current_time()

    def ack(self, *, not_after: float = FOREVER) -> None:
        """See the port."""
        self._answer("+ACK", lambda: self._consumer.ack(self.stream_sequence), not_after)

    def nak(self, delay: float = 0.0, *, not_after: float = FOREVER) -> None:
        """See the port; noted as the real one writes it, for tests that look at ``answers``."""
        delay_ns = round(delay * NS)
        body = f'-NAK {{"delay": {delay_ns}}}' if delay_ns else "-NAK"
        self._answer(body, lambda: self._consumer.nak(self.stream_sequence, delay), not_after)

    def term(self, *, not_after: float = FOREVER) -> None:
        """See the port; to the queue it is what an ``+ACK`` is, and only the note differs."""
        self._answer("+TERM", lambda: self._consumer.ack(self.stream_sequence), not_after)

    def forget(self) -> None:
        """See the port."""
        self._answered = True

    async def renew(self, *, deadline: float) -> float:
        """See the port.

        Held, the renewal arrives at the release even if nobody waits for it any more; then it may
        extend the lease that another worker has by that time, as the real server lets it.
        """
        if self._line.holding:
            self._line.send(lambda: self._consumer.renew(self.stream_sequence), deadline)
        await self._line.turn(deadline)
        self._consumer.renew(self.stream_sequence)
        return trio.current_time()

    def _answer(self, body: str, call: Callable[[], None], not_after: float) -> None:
        """Send the one answer along the line; one that gets lost is not sent again by anybody."""
        if self._answered:
            return
        self._answered = True
        if self._line.answers_to_lose:
            self._line.answers_to_lose -= 1
            return

        def arrive() -> None:
            self._consumer.note(self.stream_sequence, self.deliveries, body)
            call()

        self._line.send(arrive, not_after)


@final
class MemoryIntake:
    """See ``port.Intake``.

    Args:
        line: the connection.
        find: returns the durable, None while it does not exist.
        sink: where messages and credits go; never called from inside ``pull``. What it raises for
            a delivery is logged, and the message left to its lease.
    """

    def __init__(self, line: Line, find: Callable[[], Consumer | None], sink: IntakeSink) -> None:
        self._line = line
        self._find = find
        self._sink = sink
        self._credits = 0
        self._expires = 0.0
        self._once = False
        self._left_behind = 0
        self._leaving = False

    def pull(self, batch: int, expires: float, *, once: bool = False) -> None:
        """See the port."""
        self._credits += batch
        self._expires = expires
        self._once = once
        until = trio.current_time() + expires
        self._line.send(lambda: self._pull(Pull(self, batch, until, once)), until)

    def left_behind(self) -> int:
        """See the port; counted when the last message was handed out."""
        return self._left_behind

    def hand_out(self, consumer: Consumer, record: Record, deliveries: int) -> None:
        """Take a message from the server; it is lost if the connection is.

        Lost, it is no credit used: the server counts it as delivered, the intake asks for it again.
        """
        if not self._line.connected:
            return
        delivery = MemoryDelivery(self._line, consumer, record, deliveries)
        self._credits = max(0, self._credits - 1)
        self._left_behind = consumer.state().pending
        if self._leaving:
            delivery.nak()
        else:
            try:
                self._sink.delivered(delivery)
            except Exception as error:  # noqa: BLE001 - the border to what takes messages
                delivery.forget()
                callback_failed(delivery.subject, error)

    def expired(self, left: int) -> None:
        """Take back the credits of a pull that has ended."""
        self._give_back(left, PullEnd.EXPIRED)

    def gone(self, left: int) -> None:
        """Take back the credits of a pull whose consumer is not there."""
        self._give_back(left, PullEnd.CONSUMER_GONE)

    def reconnected(self) -> None:
        """Ask again: the open pulls died with the connection."""
        self.forget()
        credits_, self._credits = self._credits, 0
        if credits_:
            self.pull(credits_, self._expires, once=self._once)

    def leave(self) -> None:
        """End all pulls; what is on its way is handed back.

        Never waits: the server hears of it at once, also on a line that is cut, where a real one
        would find out by the lost connection.
        """
        self._leaving = True
        self.forget()

    def _pull(self, pull: Pull) -> None:
        """Let the server have a pull; without its durable it has ended at once."""
        consumer = self._find()
        if consumer is None:
            self.gone(pull.left)
        elif not self._leaving:
            consumer.pull(pull)

    def forget(self) -> None:
        """Let the server drop the open pulls: by leaving, by a crash, before asking anew."""
        consumer = self._find()
        if consumer is not None:
            consumer.forget(self)

    def _give_back(self, count: int, why: PullEnd) -> None:
        """Give credits back, never more than there are; on a cut line nobody hears of an end.

        They stay in the account then, and are part of what is asked for when it is mended.
        """
        back = min(count, self._credits)
        if back and self._line.connected and not self._leaving:
            self._credits -= back
            self._sink.returned(back, why)
