"""The port: what the rest of the package may ask of a server, and nothing about how.

Two implementations pass one contract suite (``tests/contract``): the one on a NATS connection
(``transport/nats``, on either path of ``transport/nats_py``) and the in-memory broker
(``transport/memory``).

Times are trio clock readings (seconds, float) when they are deadlines, and wall-clock nanoseconds
(int) in names that end in ``_ns``. Every wait has a deadline; cancelling a call never breaks the
connection, but a store that was sent may be stored all the same.

Every method raises ``UsageError``, before anything is sent, for a text that cannot stand in a line
of the protocol (``wire/subjects``): a blank or a control character in a subject, a wildcard in a
key, a dot in the name of a stream, a colon in that of a header. Control characters in the value of
a header become blanks, but for those in a ``msg_id``, which is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

from trio_dagnats.errors import BrokerError
from trio_dagnats.transport.buckets import Buckets
from trio_dagnats.transport.receiving import Delivery, Intake, IntakeSink
from trio_dagnats.transport.values import (
    FOREVER,
    FRESH,
    NO_HEADERS,
    ConsumerSpec,
    ConsumerState,
    Entry,
    Message,
    PullEnd,
    Record,
    Stored,
    StreamSpec,
)
from trio_dagnats.wire.events import Event

__all__ = [
    "FOREVER",
    "FRESH",
    "NO_HEADERS",
    "Broker",
    "ConsumerSpec",
    "ConsumerState",
    "Delivery",
    "Entry",
    "Intake",
    "IntakeSink",
    "Message",
    "OnMessage",
    "OnStored",
    "Pending",
    "PullEnd",
    "Record",
    "Stored",
    "StreamSpec",
]


OnMessage = Callable[[Message | None], None]
"""Called by the transport for each message; must not wait. ``None`` means that the connection was
lost and is back: messages may have been missed, so look again. What it raises is its own defect:
logged, and it gets the next message all the same."""

OnStored = Callable[[Stored | BrokerError], None]
"""Called by the transport, once, with what became of a post; must not wait. What it raises is its
own defect, and logged."""


class Pending(Protocol):
    """A post that waits for its acknowledgement.

    Attributes:
        deadline: trio time; may be moved, and is looked at a few times a second.
    """

    deadline: float

    def abandon(self) -> None:
        """Forget it: nobody is told any more, and what is still queued is not sent."""
        ...


@runtime_checkable
class Broker(Buckets, Protocol):
    """A connected server. Opened by ``open_broker`` and valid inside that block only."""

    @property
    def max_payload(self) -> int:
        """The most bytes (headers and body) that the server takes in one message."""
        ...

    @property
    def abort_after(self) -> float:
        """Seconds after which a dead connection is aborted, with all bytes still in the kernel.

        ``FOREVER`` when this process cannot know it (a client that the caller connected).
        """
        ...

    @property
    def connected(self) -> bool:
        """Whether the connection is up, as far as this side knows; may be read by any thread."""
        ...

    def time_ns(self) -> int:
        """Read the wall clock: nanoseconds since the epoch (virtual for the in-memory broker)."""
        ...

    async def publish(
        self, subject: str, body: bytes, *, headers: Mapping[str, str] = NO_HEADERS, reply: str = ""
    ) -> None:
        """Send a core message; at most once, unacknowledged. Waits only while the queue is full."""
        ...

    def new_inbox(self) -> str:
        """Return a subject for answers that nobody else has, below which there may be more."""
        ...

    async def request(self, subject: str, body: bytes, *, timeout: float) -> Message:
        """Send a core request and return the first answer.

        On a real connection it is sent again after a reconnect, and after 5 seconds of silence: who
        serves the subject may get it twice, and has to bear that.

        Raises:
            Missing: nobody serves the subject.
            NotStored: no answer within ``timeout`` seconds.
        """
        ...

    async def store(  # noqa: PLR0913 - one publish, six facts about it
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
        """Publish to a stream and wait until the server has stored the message.

        Sent again under the same ``msg_id`` after a reconnect or a refusal that can pass, until
        ``deadline`` (trio time); after it nothing is sent, not even what is still queued.

        Args:
            subject: where to publish.
            body: the bytes.
            msg_id: ``Nats-Msg-Id``; the server drops a second one within the stream's window.
            headers: more headers.
            expect_last: store only if this is the sequence of the subject's last message
                (``Nats-Expected-Last-Subject-Sequence``; 0: no message yet).
            resend_expect: the same condition, but only for sends after the first one.
            deadline: trio time.

        Raises:
            NotStored: not acknowledged in time; it may or may not be stored.
            Conflict: the condition does not hold.
            TooLarge: more than ``max_payload``; nothing was sent.
            Missing: no stream takes this subject.
        """
        ...

    def post(
        self,
        event: Event,
        *,
        resend_expect: int | None = None,
        deadline: float,
        done: OnStored,
    ) -> Pending | None:
        """Store an event as :meth:`store` does, but without a task that waits for it.

        The hot half of a worker: two of these are sent for every task, and a trio task that waits
        costs more than the message. Never waits; ``done`` is called later, never from in here.

        Args:
            event: what to store, under its id.
            resend_expect: the condition for sends after the first one, as in ``store``.
            deadline: trio time.
            done: gets the acknowledgement; or ``NotStored`` when the deadline has passed (it may
                or may not be stored); or another error for a refusal that ``store`` would look
                into and perhaps outwait: call that then, under the same id.

        Returns:
            None if it cannot be queued now (too much is, or it is too large): call ``store``.
        """
        ...

    def listen(
        self, subject: str, on_message: OnMessage, *, queue: str = ""
    ) -> AbstractAsyncContextManager[None]:
        """Subscribe to core messages for the length of a block.

        Entering returns once the server has the subscription: what is published after that is
        seen. ``on_message`` gets ``None`` after each reconnect.

        Raises:
            NotStored: on entering: the server did not confirm within 5 seconds.
        """
        ...

    def intake(
        self, stream: str, durable: str, sink: IntakeSink, *, fresh: float = FRESH
    ) -> AbstractAsyncContextManager[Intake]:
        """Open the subscription for the pulls of one durable consumer, for the length of a block.

        A sign of life every ``fresh`` seconds keeps the ``sent_after`` of deliveries that recent.
        Leaving stops the pulls on the server and hands back (NAK) every message that was on its
        way, within 5 seconds; none is lost for an ``ack_wait``.
        """
        ...

    async def records(
        self, stream: str, subject: str, *, after: int = 0, since_ns: int = 0, deadline: float
    ) -> list[Record]:
        """Read the messages of one subject, oldest first, up to what is stored now.

        Not for a work queue: its server lets only its own durables read it.

        Args:
            stream: the stream's name.
            subject: an exact subject or a filter.
            after: only sequences greater than this.
            since_ns: only messages stored at or after this wall-clock time.
            deadline: trio time.

        Raises:
            Missing: no such stream.
            NotStored: no answer in time.
        """
        ...

    async def last_record(self, stream: str, subject: str, *, deadline: float) -> Record | None:
        """Read the newest message of an exact subject, None if there is none."""
        ...

    async def ensure_stream(self, spec: StreamSpec, *, deadline: float) -> None:
        """Create the stream, or update it to this specification."""
        ...

    async def ensure_bucket(self, bucket: str, *, ttl_ns: int = 0, deadline: float) -> None:
        """Create the key-value bucket (history 1) if it is absent."""
        ...

    async def has_stream(self, stream: str, *, deadline: float) -> bool:
        """Say whether the stream exists; a bucket's stream is ``KV_<bucket>``.

        Raises:
            Missing: the server has no JetStream at all.
        """
        ...

    async def stream_made_ns(self, stream: str, *, deadline: float) -> int:
        """Return when the stream was made, by the server's clock as the times of messages are.

        What is older was in an earlier stream of that name, whose sequences are used again.

        Raises:
            Missing: no such stream.
        """
        ...

    async def consumers(self, stream: str, *, deadline: float) -> Sequence[ConsumerState]:
        """List all consumers of a stream, all pages."""
        ...

    async def ensure_consumer(self, spec: ConsumerSpec, *, deadline: float) -> ConsumerState:
        """Create the durable, or update it; return it as it is now.

        A ``max_ack_pending`` above the server's limit becomes that.

        Raises:
            Conflict: its filter overlaps that of another consumer of a work queue.
            Missing: no such stream.
        """
        ...

    async def delete_consumer(self, stream: str, name: str, *, deadline: float) -> None:
        """Delete a consumer; an absent one is no error.

        The server tells so on ``wire.names.consumer_deleted``; of a stream on ``stream_deleted``.
        """
        ...
