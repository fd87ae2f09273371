"""The port's broker on a NATS connection: hands each call to the part that does it.

::

    NatsBroker ─┬─ Publisher  (stores)    store, post          ──> requests ──┐
                ├─ KeyValues  (kv)        kv_*                 ──> publisher, records, api
                ├─ Records    (records)   records, last_record ──> api, subscriptions
                ├─ JsApi      (jsapi)     streams, consumers   ──> requests ──┤
                ├─ open_intake (intake)   intake               ──> subscriptions, outbox
                └─ Link       (link)      publish, request,    ──> outbox <───┘
                                          listen                     │
                                                          Path: our own bytes, or nats-py's calls

Nothing but handing on stands here, so the contract of each method is the port's, and its "why" that
of the part. What the parts share is the link: one outbox, one table of requests, one set of
subscriptions for the connection.
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import final

import trio

from trio_dagnats.errors import Missing, NotStored
from trio_dagnats.transport.nats.frames import Frame, Incoming, encode_headers
from trio_dagnats.transport.nats.intake import NatsIntake, open_intake
from trio_dagnats.transport.nats.jsapi import NO_RESPONDERS, JsApi
from trio_dagnats.transport.nats.kv import KeyValues
from trio_dagnats.transport.nats.link import Link
from trio_dagnats.transport.nats.publisher import Publisher
from trio_dagnats.transport.nats.records import Records
from trio_dagnats.transport.port import (
    FOREVER,
    FRESH,
    NO_HEADERS,
    ConsumerSpec,
    ConsumerState,
    Entry,
    IntakeSink,
    Message,
    OnMessage,
    Record,
    Stored,
    StreamSpec,
)
from trio_dagnats.transport.rules import check_size
from trio_dagnats.wire.subjects import SHORT


@final
class NatsBroker:
    """See ``port.Broker``; every method's contract stands there.

    Made by whoever dialled, once a link can be opened: ``nats_py.connection`` and ``borrowed``.
    Usable from every task of one trio run, and from no thread.

    Args:
        link: the connection.

    Attributes:
        post: see the port. The publisher's own method, because a method here would be one call
            more for each of a task's two events.
        new_inbox: see the port.
        time_ns: the wall clock of this machine, not the server's.
        abort_after: see the port.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._api = JsApi(link)
        self._publisher = Publisher(link, self._api)
        self.post = self._publisher.post
        self.new_inbox = link.new_inbox
        self.time_ns = time.time_ns
        self.abort_after = link.abort_after  # no property: each task reads it
        link.on_closed = self._closed
        self._records = Records(link, self._api)
        self._kv = KeyValues(self._api, self._records, self._publisher)

    def _closed(self) -> None:
        self.abort_after = FOREVER  # nothing arrives any more, so nothing is surely in time

    @property
    def connected(self) -> bool:
        """See the port."""
        return self._link.path.writable

    @property
    def max_payload(self) -> int:
        """See the port; read anew each time: a reconnect may lead to a server with another one."""
        return self._link.path.max_payload

    async def publish(
        self, subject: str, body: bytes, *, headers: Mapping[str, str] = NO_HEADERS, reply: str = ""
    ) -> None:
        """See the port.

        The checkpoint comes before the frame is queued: cancelled here, nothing was sent.
        """
        frame = Frame(subject, body, reply=reply, head=encode_headers(headers))
        check_size(frame.size, subject, self.max_payload)
        await trio.lowlevel.checkpoint()
        await self._link.outbox.wait_for_room()
        self._link.outbox.put(frame)

    async def request(self, subject: str, body: bytes, *, timeout: float) -> Message:
        """See the port.

        Sent again after a reconnect or five seconds of silence, so who serves a subject may get a
        request twice. A server without a responder says so at once, by the status 503.
        """
        deadline = trio.current_time() + timeout
        frame = Frame(subject, body, not_after=deadline)
        check_size(frame.size, subject, self.max_payload)
        try:
            answer = await self._api.ask(frame, deadline)
        except NotStored as error:
            why = self._link.requests.refusal(subject)
            raise NotStored(f"no answer from {subject!r} within {timeout:g} s{why}") from error
        if answer.status == NO_RESPONDERS:
            raise Missing(f"nobody serves {subject!r} on this server")
        return _message(answer)

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
        """See the port."""
        return await self._publisher.store(
            subject,
            body,
            msg_id=msg_id,
            headers=headers,
            expect_last=expect_last,
            resend_expect=resend_expect,
            deadline=deadline,
        )

    @asynccontextmanager
    async def listen(
        self, subject: str, on_message: OnMessage, *, queue: str = ""
    ) -> AsyncIterator[None]:
        """See the port.

        The barrier on entering is what makes "what is published after that is seen" true: a SUB is
        unconfirmed by itself. A message that was stored is heard here, too, for a stream is only
        another subscriber of its subjects.
        """

        def deliver(incoming: Incoming) -> None:
            on_message(_message(incoming))

        def gap() -> None:
            on_message(None)

        async with self._link.subscribed(subject, deliver, queue=queue, gap=gap):
            yield

    def intake(
        self, stream: str, durable: str, sink: IntakeSink, *, fresh: float = FRESH
    ) -> AbstractAsyncContextManager[NatsIntake]:
        """See the port; nothing is asked of the server here.

        Of an absent durable the first pull tells, by its end: ``CONSUMER_GONE``.
        """
        return open_intake(self._link, stream, durable, sink, fresh)

    async def records(
        self, stream: str, subject: str, *, after: int = 0, since_ns: int = 0, deadline: float
    ) -> list[Record]:
        """See the port."""
        return await self._records.read(
            stream, subject, after=after, since_ns=since_ns, deadline=deadline
        )

    async def last_record(self, stream: str, subject: str, *, deadline: float) -> Record | None:
        """See the port."""
        return await self._records.last(stream, subject, deadline)

    async def kv_get(self, bucket: str, key: str, *, deadline: float) -> Entry | None:
        """See the port."""
        return await self._kv.get(bucket, key, deadline)

    async def kv_get_many(
        self, bucket: str, keys: Sequence[str], *, deadline: float
    ) -> Mapping[str, Entry]:
        """See the port."""
        return await self._kv.get_many(bucket, keys, deadline)

    async def kv_put(
        self, bucket: str, key: str, value: bytes, *, expect: int | None = None, deadline: float
    ) -> int:
        """See the port."""
        return await self._kv.put(bucket, key, value, expect, deadline)

    async def kv_delete(self, bucket: str, key: str, *, deadline: float) -> None:
        """See the port."""
        await self._kv.delete(bucket, key, deadline)

    async def kv_entries(self, bucket: str, prefix: str = "", *, deadline: float) -> list[Entry]:
        """See the port."""
        return await self._kv.entries(bucket, prefix, deadline)

    async def kv_clear(self, bucket: str, prefix: str, *, deadline: float) -> None:
        """See the port."""
        await self._kv.clear(bucket, prefix, deadline)

    async def ensure_stream(self, spec: StreamSpec, *, deadline: float) -> None:
        """See the port."""
        await self._api.ensure_stream(spec, deadline)

    async def ensure_bucket(self, bucket: str, *, ttl_ns: int = 0, deadline: float) -> None:
        """See the port."""
        await self._api.ensure_bucket(bucket, ttl_ns, deadline)

    async def has_stream(self, stream: str, *, deadline: float) -> bool:
        """See the port."""
        return await self._api.has_stream(stream, deadline)

    async def stream_made_ns(self, stream: str, *, deadline: float) -> int:
        """See the port."""
        return await self._api.stream_made_ns(stream, deadline)

    async def consumers(self, stream: str, *, deadline: float) -> Sequence[ConsumerState]:
        """See the port."""
        return await self._api.consumers(stream, deadline)

    async def ensure_consumer(self, spec: ConsumerSpec, *, deadline: float) -> ConsumerState:
        """See the port."""
        return await self._api.ensure_consumer(spec, deadline)

    async def delete_consumer(self, stream: str, name: str, *, deadline: float) -> None:
        """See the port."""
        await self._api.delete_consumer(stream, name, deadline)


def _message(incoming: Incoming) -> Message:
    """Return a message for a listener; whoever wants its answer where none can go gets none.

    The server lets any bytes be a reply subject. Published to, an odd one would be refused by our
    own outbox, as a fault of whoever answers; so it is taken away where it comes in.
    """
    reply = incoming.reply
    return Message(
        subject=incoming.subject,
        body=incoming.body,
        reply=reply if reply.isprintable() and len(reply) <= SHORT else "",
        headers=incoming.headers,
    )
