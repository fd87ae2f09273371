"""Credit-based pulls of one durable consumer (rule D6).

Messages do not say which pull they answer, so credits are kept in one account: each message uses
one, and the end of a pull (408, 409) says how many of its own were left. Silence of a pull is
noticed by missing heartbeats, a lost connection by the reconnect.

What moves the account, and what the sink hears of it:

=================================  ================  =============================
what happens                       credits           the sink
=================================  ================  =============================
``pull(n)``                        ``+ n``           nothing
a message                          ``- 1``           ``delivered``
404, 408                           ``- left``        ``returned``, ``EXPIRED``
409 ``Batch Completed``            ``- left``        ``returned``, ``EXPIRED``
anything else                      ``- left``        ``returned``, ``REFUSED``
503, consumer or stream deleted    all of them       ``returned``, ``CONSUMER_GONE``
no heartbeat, or no end in time    all of them       ``returned``, ``EXPIRED``
the connection is lost             stay              nothing
the connection is back             asked for anew    nothing
=================================  ================  =============================

``left`` is the header ``Nats-Pending-Messages`` of the status; one without it gives back the whole
account. A message that is lost with a connection costs the account nothing: the server delivers it
again when its lease ends, and its credit is part of what is asked for anew.

A pull that ends without a word is told to ``Silence``, if the server has answered others meanwhile:
several of them make the connection anew, and at last end it.

Made by ``NatsBroker.intake``; the sink is a worker's ``Consumer`` or a reader of the local engine.
All of it runs in trio's thread: ``take`` is called by the parser (on the public path by nats-py's
callback), and nothing in it waits.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import final

import trio

from trio_dagnats.errors import NotStored
from trio_dagnats.logs import Log
from trio_dagnats.transport.nats.delivery import NatsDelivery
from trio_dagnats.transport.nats.frames import Frame, Incoming
from trio_dagnats.transport.nats.jsapi import api_subject
from trio_dagnats.transport.nats.link import Link
from trio_dagnats.transport.nats.subscriptions import Subscription
from trio_dagnats.transport.patience import END_OF_PULLS
from trio_dagnats.transport.port import NO_HEADERS, IntakeSink, PullEnd
from trio_dagnats.wire.text import NS, whole

log = Log("trio_dagnats.transport")

HEARTBEAT_LEAST = 1.0
HEARTBEAT_MOST = 5.0
"""Seconds between the server's signs of life on an open pull. Less than one would be traffic for
nothing; more than five would leave slots promised to a dead pull for longer than 12.5 seconds."""
HEARTBEATS_MISSED = 2.5
"""So many of them without one, and the pull is dead: two were lost, or the server has gone."""

_END_OF_STATUS = {"404": PullEnd.EXPIRED, "408": PullEnd.EXPIRED, "503": PullEnd.CONSUMER_GONE}
_GONE = ("Consumer Deleted", "Consumer is push based", "Stream Deleted")
"""How the texts of a 409 begin after which no pull can succeed: the status alone does not tell."""


@final
class NatsIntake:
    """See ``port.Intake``.

    Written to by the parser (``take``, ``take_plain``), by the link (``gap``), by the owner's loop
    (``pull``), and by its own two tasks, ``watch`` and ``keep_fresh``; none of them gives up
    control between reading the account and changing it, so it needs no lock.

    Args:
        link: the connection.
        stream: the stream's name.
        durable: the consumer's name.
        sink: where messages and credits go.
        fresh: seconds between two signs of life.

    Attributes:
        inbox: the subject on which all pulls are answered. One for the whole intake, so that a
            message of an earlier pull is still taken after the next one was sent.
    """

    def __init__(
        self, link: Link, stream: str, durable: str, sink: IntakeSink, fresh: float
    ) -> None:
        self._link = link
        self._fresh = fresh
        self._next = api_subject(link.api, "CONSUMER.MSG.NEXT", stream, durable)
        self.name = durable
        self._sink = sink
        self.inbox = link.new_inbox()
        self._credits = 0
        self._expires = 0.0
        self._once = False
        self._last = ""
        self._ends = 0.0
        self._heard = 0.0
        self._asked = 0.0
        self._leaving = False
        self._refusal = ""
        self._pulled = trio.lowlevel.ParkingLot()

    def pull(self, batch: int, expires: float, *, once: bool = False) -> None:
        """See the port; the credits count from here on, not from when the frame is written."""
        self._credits += batch
        self._expires = expires
        self._once = once
        self._ask(batch)

    @property
    def answered(self) -> bool:
        """Whether the server has said something since the last pull was asked for."""
        return self._heard != self._asked

    def left_behind(self) -> int:
        """See the port; the last token of an ack subject is the number of pending messages.

        Read when it is asked for, not with each message: nobody asks while there is room.
        """
        left = self._last.rpartition(".")[2]
        return int(left) if left.isdecimal() else 0

    def _ask(self, batch: int) -> None:
        """Queue a request for so many messages, which the account has already.

        Not sent any more once it could only be answered by its own end (``not_after``). What then
        becomes of its credits is ``watch``'s to find out: no status comes for a request that was
        never sent.
        """
        expires = self._expires
        beat = _beat(expires)
        if self.answered:
            self._link.silence.broken(self)
        self._asked = self._heard = trio.current_time()
        self._ends = max(self._ends, self._heard + expires)
        request: dict[str, int | bool] = {"batch": batch, "expires": round(expires * NS)}
        if self._once:
            request["no_wait"] = True
        if expires >= 2 * beat:
            request["idle_heartbeat"] = int(beat * NS)  # more than a half of expires is refused
        body = json.dumps(request, separators=(",", ":")).encode()
        self._link.outbox.put(
            Frame(self._next, body, reply=self.inbox, not_after=self._heard + expires)
        )
        self._pulled.unpark_all()

    def take(self, message: Incoming) -> None:
        """Take a message or a status from the server."""
        if message.status:
            self._heard = self._link.now()
            self._take_status(message)
        else:
            self._deliver(message.subject, message.reply, message.body, message.headers)

    def take_plain(self, subject: bytes, reply: bytes, body: bytes) -> None:
        """Take a message without headers from the server: a status always has some."""
        self._deliver(
            subject.decode("utf-8", "replace"), reply.decode("utf-8", "replace"), body, NO_HEADERS
        )

    def _deliver(self, subject: str, reply: str, body: bytes, headers: Mapping[str, str]) -> None:
        """Hand a message to the sink, or back to the server while the intake is left.

        The account may be empty: after silence it was given back as a whole, and a message that was
        only late comes all the same. The sink has to live with more than it asked for.
        """
        self._heard = now = self._link.now()
        delivery = NatsDelivery(self._link, subject, reply, body, headers, now)
        self._last = reply
        if self._credits:
            self._credits -= 1
        if self._leaving:
            self._hand_back(delivery)
        else:
            try:
                self._sink.delivered(delivery)
            except Exception:
                delivery.forget()  # unless it was answered: then it comes again after its lease
                raise

    def _hand_back(self, delivery: NatsDelivery) -> None:
        """Hand back what has just been sent; what was long on its way may be another's by now."""
        if delivery.received_at - delivery.sent_after <= 2 * self._fresh:
            delivery.nak()
        else:
            delivery.forget()

    def _take_status(self, message: Incoming) -> None:
        """Take the end of a pull; a heartbeat (100) says nothing but that the server is there."""
        if message.status == "100":
            return
        why = _END_OF_STATUS.get(message.status, PullEnd.REFUSED)
        if message.note.startswith(_GONE):
            why = PullEnd.CONSUMER_GONE
        elif message.status == "409" and "Nats-Pending-Messages" in message.headers:
            why = PullEnd.EXPIRED if "Batch" in message.note else PullEnd.REFUSED
        self._tell(f"{message.status} {message.note}" if why is PullEnd.REFUSED else "")
        left = whole(message.headers.get("Nats-Pending-Messages", ""))
        if why is PullEnd.CONSUMER_GONE or left is None:
            left = self._credits
        self._give_back(left, why)

    def _tell(self, refusal: str) -> None:
        """Log why the server refuses pulls, once until one has ended in another way."""
        if refusal and refusal != self._refusal:
            log.warning(
                "consumer %s: the server has refused a pull: %s; it is asked again after a pause, "
                "within the limits that the consumer has by then",
                self.name,
                refusal,
            )
        self._refusal = refusal

    def _give_back(self, credits_: int, why: PullEnd) -> None:
        """Take credits out of the account, never more than it has, and tell the sink.

        While the intake is left nobody is told, for nobody pulls any more.
        """
        back = min(credits_, self._credits)
        self._credits -= back
        if not self._credits:
            self._ends = 0.0
        if back and not self._leaving:
            self._sink.returned(back, why)

    def gap(self) -> None:
        """Ask again after a reconnect: open pulls died with the connection.

        One request for all that the account has, whatever number of pulls it came from; it expires
        as the newest of them would have, counted from now. The sink hears nothing, so its slots
        stay promised through an outage, and nothing is pulled twice.
        """
        if self._credits and not self._leaving:
            self._ask(self._credits)

    async def watch(self) -> None:
        """Give back the credits of pulls that the server has forgotten, until cancelled.

        A pull is forgotten when nothing was heard for ``HEARTBEATS_MISSED`` of its heartbeats, or
        when its end has not come a heartbeat after it was due. While the connection is down
        silence proves nothing: the clock starts again, and ``gap`` asks anew.
        """
        while True:
            if not self._credits:
                await self._pulled.park()
                continue
            beat = _beat(self._expires)
            silent_at = self._heard + beat * HEARTBEATS_MISSED
            await trio.sleep_until(min(silent_at, self._ends + beat))
            now = trio.current_time()
            if not self._link.path.writable:
                self._asked = self._heard = now  # the reconnect asks again
            elif now >= self._heard + beat * HEARTBEATS_MISSED or now >= self._ends + beat:
                known_alive = self._asked < self._link.requests.contact + self._fresh
                if known_alive and not self.answered:
                    self._link.silence.went_on(self, now - self._asked)
                self._give_back(self._credits, PullEnd.EXPIRED)

    async def keep_fresh(self) -> None:
        """Hear from the server every ``fresh`` seconds, by whatever answer, until cancelled.

        It bounds how old ``sent_after`` of the next delivery can be, and so how much of a lease is
        written off for a message that was perhaps long on its way: the worker asks for a sixth of
        ``ack_wait``, 10 s at the most (``attempt.lease.fresh_within``).

        An echo that another intake waits for is as good as its own, unless it stays out.
        """
        link = self._link
        while True:
            due = max(link.requests.contact, link.echoed_at) + self._fresh
            if trio.current_time() < due:
                await trio.sleep_until(due)
                continue
            with suppress(NotStored):
                await link.echo(trio.current_time() + self._fresh)

    async def leave(self, subscription: Subscription) -> None:
        """Stop the pulls on the server and hand back what is on its way (design 8.8).

        The subscription stays until the server has confirmed that nothing more comes. Taken away
        with the UNSUB, it would let messages fall that the server counts as delivered, each for a
        whole ``ack_wait``. Shielded, for at most ``END_OF_PULLS`` seconds; after those what still
        comes is left to its lease.
        """
        self._leaving = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + END_OF_PULLS):
            await self._link.path.unsubscribe(subscription)
            try:
                # Twice: what the server had put on its way when it took the UNSUB comes before the
                # second echo at the latest.
                await self._link.path.barrier()
                await self._link.path.barrier()
            except NotStored:
                log.warning("consumer %s: the end of pulling was not confirmed", self.name)
        self._link.subscriptions.remove(subscription)


def _beat(expires: float) -> float:
    """Return the seconds between signs of life; a pull that is shorter than two has none."""
    return min(max(expires / 2, HEARTBEAT_LEAST), HEARTBEAT_MOST)


@asynccontextmanager
async def open_intake(
    link: Link, stream: str, durable: str, sink: IntakeSink, fresh: float
) -> AsyncIterator[NatsIntake]:
    """Open an intake for the length of a block; see ``port.Broker.intake``.

    Its two tasks outlive the block's body, for ``leave`` waits for echoes and must still find the
    account kept.
    """
    intake = NatsIntake(link, stream, durable, sink, fresh)
    subscription = link.subscriptions.add(
        intake.inbox, intake.take, gap=intake.gap, plain=intake.take_plain
    )
    async with trio.open_nursery() as nursery:
        try:
            await link.path.subscribe(subscription)
            nursery.start_soon(intake.watch)
            nursery.start_soon(intake.keep_fresh)
            link.silence.began(intake)
            yield intake
        finally:
            await intake.leave(subscription)
            link.silence.left(intake)
            nursery.cancel_scope.cancel()
