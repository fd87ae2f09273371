"""A connection to the in-memory server, and the faults that a test can give it.

What a test can order, and what it is like on a real network:

=======================  =====================================================================
``disconnect``           what is sent waits; what is delivered is lost; the server does not know
                         yet, so open pulls go on taking messages; leases run on
``reconnect``            what waits goes out in its order, unless its time is over; then pulls
                         are asked for anew, then listeners are told
``crash``                as ``disconnect``, and the server drops the pulls: a killed process
``line.hold``            what is sent stays on its way: a stuck connection, whose bytes the
                         kernel still has. ``line.release`` lets all of it arrive, however late
``acks_to_lose``         so many stores succeed, and their acknowledgements get lost
``line.answers_to_lose`` so many answers to deliveries get lost: their leases run out
=======================  =====================================================================

All else is answered in the next turn. Deadlines, silences of 5 s and the ``resent`` of an
acknowledgement are those of the real connection, since what is built on them is what is tested.

The way of a store, which all faults meet::

    turn ──> stored ──┬─ acknowledged ──────────────────────────> Stored
      ^               └─ that got lost: 5 s, or until mended ──┐
      └───────── again, under the same id, ``resend_expect`` ──┘   the deadline ──> NotStored

So a lost acknowledgement ends as a duplicate with ``resent``; with ``resend_expect`` as a conflict,
for the message itself has moved its subject on, and ``worker.engine.settle`` reads whose it is.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import final

import trio

from trio_dagnats.errors import BrokerError, TooLarge
from trio_dagnats.transport.memory import core
from trio_dagnats.transport.memory.intake import MemoryIntake
from trio_dagnats.transport.memory.line import Line
from trio_dagnats.transport.memory.posts import SILENCE, Post
from trio_dagnats.transport.memory.server import MemoryServer
from trio_dagnats.transport.port import (
    FRESH,
    NO_HEADERS,
    ConsumerSpec,
    ConsumerState,
    Entry,
    IntakeSink,
    Message,
    OnMessage,
    OnStored,
    Record,
    Stored,
    StreamSpec,
)
from trio_dagnats.transport.rules import (
    OPERATION,
    below_subject,
    entries_of,
    key_subject,
    prefix_subject,
)
from trio_dagnats.wire.events import Event
from trio_dagnats.wire.subjects import check_filter, check_key, check_name

ABORT_AFTER = 35.0
"""Seconds, as on a real connection: the worker compares leases with it."""


@final
class MemoryBroker:
    """See ``port.Broker``. A connection of its own to a server.

    Several of them on one server are several processes. Nothing has to be closed: it lives as long
    as its server, and what it has open ends with the blocks that opened it.

    Args:
        server: the server; entered before anything is asked of it.

    Attributes:
        abort_after: see the port.
        new_inbox: see the port.
        acks_to_lose: how many acknowledgements of stores get lost on their way, from now on.
        line: what else can happen to what is sent.
    """

    def __init__(self, server: MemoryServer) -> None:
        self._server = server
        self.abort_after = ABORT_AFTER
        self.new_inbox = core.new_inbox
        self.line = Line(server.clockwork)
        self.acks_to_lose = 0

    @property
    def max_payload(self) -> int:
        """See the port; headers count as they are written, as on the wire."""
        return self._server.max_payload

    def time_ns(self) -> int:
        """See the port."""
        return self._server.time_ns()

    @property
    def connected(self) -> bool:
        """Whether the connection is up; see :meth:`disconnect`."""
        return self.line.connected

    def disconnect(self) -> None:
        """Lose the connection: what is sent waits, what is delivered is lost, leases run on.

        Returns at once. Calls that wait for an answer go on waiting until their deadline, or until
        :meth:`reconnect`.
        """
        self.line.cut()

    def crash(self) -> None:
        """End as a killed process does: as :meth:`disconnect`, and the server drops the pulls.

        What was handed out is redelivered to others when its lease ends. The tasks of the worker
        that used the connection go on until the test cancels them, and nobody hears them.
        """
        self.line.crash()

    def reconnect(self) -> None:
        """Bring the connection back: queued frames go out, pulls and listeners start over.

        In this order, so that what was said before the loss arrives before what follows from it. A
        frame whose time is over is dropped instead, as it is on a real connection.
        """
        self.line.mend()

    async def publish(
        self, subject: str, body: bytes, *, headers: Mapping[str, str] = NO_HEADERS, reply: str = ""
    ) -> None:
        """See the port; who hears it does so in the next turn, never inside this call."""
        headers = core.checked(self._server, subject, body, headers, reply=reply)
        await trio.lowlevel.checkpoint()
        message = Message(subject=subject, body=body, headers=headers, reply=reply)
        self.line.send(lambda: _ignore(self._server.publish(message)))

    async def request(self, subject: str, body: bytes, *, timeout: float) -> Message:
        """See the port; sent once: nothing is sent again here after a loss."""
        core.checked(self._server, subject, body, NO_HEADERS)
        return await core.ask(self._server, self.line, subject, body, timeout)

    async def store(  # noqa: PLR0913 - the port's signature
        self,
        subject: str,
        body: bytes,
        *,
        msg_id: str = "",
        headers: Mapping[str, str] = NO_HEADERS,
        expect_last: int | None = None,
        resend_expect: int | None = None,
        deadline: float,
    ) -> Stored:
        """See the port.

        While the line is held, a first send arrives at its release, whether anybody still waits
        then or not. That is the case for which outcomes are stored conditionally: a worker that has
        given up, and its event that comes after another worker's.
        """
        headers = core.checked(self._server, subject, body, headers, msg_id=msg_id)
        late = partial(self._server.store, subject, body, headers, msg_id, expect_last)
        resent = self.line.holds_back(partial(_unheard, late), deadline)
        while True:
            await self.line.turn(deadline)
            expect = resend_expect if resent and resend_expect is not None else expect_last
            stored = self._server.store(subject, body, headers, msg_id, expect)
            if self.connected and not self._loses_ack():
                return Stored(sequence=stored.sequence, duplicate=stored.duplicate, resent=resent)
            await self.line.wait(SILENCE, deadline)
            resent = True

    def post(
        self,
        event: Event,
        *,
        resend_expect: int | None = None,
        deadline: float,
        done: OnStored,
    ) -> Post | None:
        """See the port; here it is calls of the server's clockwork.

        None only for what is too large: nothing is queued here that could be full. What a real
        connection would refuse by an exception is refused by the same one.
        """
        try:
            headers = core.checked(
                self._server, event.subject, event.body, event.headers, msg_id=event.msg_id
            )
        except TooLarge:
            return None
        store = partial(self._server.store, event.subject, event.body, headers, event.msg_id)
        post = Post(
            self._server,
            self.line,
            store,
            resend_expect,
            deadline,
            done,
            self._loses_ack,
        )
        post.begin()
        return post

    @asynccontextmanager
    async def listen(
        self, subject: str, on_message: OnMessage, *, queue: str = ""
    ) -> AsyncIterator[None]:
        """See the port; after a :meth:`reconnect` each listener gets its ``None``."""
        async with core.listening(self._server, self.line, subject, on_message, queue):
            yield

    @asynccontextmanager
    async def intake(
        self,
        stream: str,
        durable: str,
        sink: IntakeSink,
        *,
        fresh: float = FRESH,  # noqa: ARG002
    ) -> AsyncIterator[MemoryIntake]:
        """See the port; a delivery's ``sent_after`` is its arrival, so ``fresh`` has nothing to do.

        The durable is looked up at each pull: it may be deleted and made again while this is open.
        An absent stream is an error at once, where a real connection ends the first pull.
        """
        check_name(durable)
        consumers = self._server.stream(stream).consumers
        intake = MemoryIntake(self.line, lambda: consumers.get(durable), sink)
        self.line.intakes.append(intake)
        try:
            yield intake
        finally:
            intake.leave()
            self.line.intakes.remove(intake)

    async def records(
        self, stream: str, subject: str, *, after: int = 0, since_ns: int = 0, deadline: float
    ) -> list[Record]:
        """See the port; a work queue may be read here, which a real server refuses."""
        check_filter(subject)
        await self.line.turn(deadline)
        found = self._server.stream(stream).read(subject, self.time_ns())
        return [r for r in found if r.sequence > after and r.time_ns >= since_ns]

    async def last_record(self, stream: str, subject: str, *, deadline: float) -> Record | None:
        """See the port; one that is past its stream's age is none."""
        check_key(subject)
        await self.line.turn(deadline)
        return self._server.stream(stream).last(subject, self.time_ns())

    async def kv_get(self, bucket: str, key: str, *, deadline: float) -> Entry | None:
        """See the port."""
        return (await self.kv_get_many(bucket, [key], deadline=deadline)).get(key)

    async def kv_get_many(
        self, bucket: str, keys: Sequence[str], *, deadline: float
    ) -> Mapping[str, Entry]:
        """See the port; all keys are read in one turn, so no write comes between two of them."""
        subjects = [key_subject(bucket, key) for key in keys]
        await self.line.turn(deadline)
        stream, now = self._server.bucket(bucket), self.time_ns()
        records = [stream.last(subject, now) for subject in subjects]
        return entries_of(bucket, [record for record in records if record])

    async def kv_put(
        self, bucket: str, key: str, value: bytes, *, expect: int | None = None, deadline: float
    ) -> int:
        """See the port; an absent bucket is refused before anything is sent.

        A write that was sent twice around a lost acknowledgement meets its own first one: with
        ``expect`` that is a ``Conflict``, as on a real connection.
        """
        subject = key_subject(bucket, key)
        self._server.bucket(bucket)
        return (await self.store(subject, value, expect_last=expect, deadline=deadline)).sequence

    async def kv_delete(self, bucket: str, key: str, *, deadline: float) -> None:
        """See the port; a key that was never there gets a marker, too, and listeners hear of it."""
        subject, headers = key_subject(bucket, key), {OPERATION: "DEL"}
        self._server.bucket(bucket)
        await self.store(subject, b"", headers=headers, deadline=deadline)

    async def kv_entries(self, bucket: str, prefix: str = "", *, deadline: float) -> list[Entry]:
        """See the port; one turn, however many there are.

        A prefix without a dot at its end is looked for among all keys, as there.
        """
        await self.line.turn(deadline)
        found = self._server.bucket(bucket).read(prefix_subject(bucket, prefix), self.time_ns())
        entries = entries_of(bucket, found)
        return [entries[key] for key in sorted(entries) if key.startswith(prefix)]

    async def kv_clear(self, bucket: str, prefix: str, *, deadline: float) -> None:
        """See the port; nobody hears of it, for nothing is published."""
        await self.line.turn(deadline)
        self._server.bucket(bucket).clear(below_subject(bucket, prefix))

    async def ensure_stream(self, spec: StreamSpec, *, deadline: float) -> None:
        """See the port; the new specification replaces the one that is there as a whole."""
        await self.line.turn(deadline)
        self._server.ensure_stream(spec)

    async def ensure_bucket(self, bucket: str, *, ttl_ns: int = 0, deadline: float) -> None:
        """See the port; one that is there keeps its keys and its TTL."""
        await self.line.turn(deadline)
        self._server.ensure_bucket(bucket, ttl_ns)

    async def has_stream(self, stream: str, *, deadline: float) -> bool:
        """See the port."""
        await self.line.turn(deadline)
        return check_name(stream) in self._server.streams

    async def stream_made_ns(self, stream: str, *, deadline: float) -> int:
        """See the port."""
        await self.line.turn(deadline)
        return self._server.stream(stream).made_ns

    async def consumers(self, stream: str, *, deadline: float) -> Sequence[ConsumerState]:
        """See the port; only durables, since a read makes no consumer here.

        So no orphan of a reader is ever listed, and one that a test wants it has to make.
        """
        await self.line.turn(deadline)
        return [consumer.state() for consumer in self._server.stream(stream).consumers.values()]

    async def ensure_consumer(self, spec: ConsumerSpec, *, deadline: float) -> ConsumerState:
        """See the port; as there, whoever comes last sets all that a durable has."""
        await self.line.turn(deadline)
        return self._server.ensure_consumer(spec).state()

    async def delete_consumer(self, stream: str, name: str, *, deadline: float) -> None:
        """See the port; its open pulls end with ``CONSUMER_GONE``, its leases with it."""
        await self.line.turn(deadline)
        self._server.delete_consumer(stream, name)

    def _loses_ack(self) -> bool:
        """Say whether the next acknowledgement gets lost; each time it is asked counts."""
        if not self.acks_to_lose:
            return False
        self.acks_to_lose -= 1
        return True


def _unheard(send: Callable[[], Stored]) -> None:
    """Store what nobody waits for any more; a refusal of it finds nobody either."""
    with suppress(BrokerError):
        send()


def _ignore(_found: object) -> None:
    """Drop whether anybody heard a published message: a core publish is not told."""
