"""The in-memory server: streams, subscriptions and time, shared by its connections.

It knows no connection: cuts and losses happen on the lines, and what arrives here has arrived. So
every fault that a test orders is one of the network's, and the server itself is always right.

``publish`` and ``store`` both do what a real server does with a message on a subject: the stream
that takes the subject stores it, and whoever subscribes hears it. They differ in who waits for an
answer, and in the id and the condition, which only a store has.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, final

import trio

from trio_dagnats.errors import Conflict, Missing
from trio_dagnats.transport.memory.clockwork import Clockwork
from trio_dagnats.transport.memory.consumers import Answer, Consumer
from trio_dagnats.transport.memory.streams import Stream
from trio_dagnats.transport.memory.subjects import matches
from trio_dagnats.transport.port import ConsumerSpec, Message, Stored, StreamSpec
from trio_dagnats.transport.rules import no_bucket
from trio_dagnats.wire.names import MSG_ID, overlap
from trio_dagnats.wire.subjects import check_filter, check_name
from trio_dagnats.wire.text import NS

EPOCH_NS = 1_786_000_000_000_000_000
"""The wall clock when trio's clock was zero; in 2026, so that ages and ids look real."""
KEPT_ANSWERS = 10_000
"""So many answers are kept for tests to look at; a schedule of an hour would fill the memory."""


@final
@dataclass(slots=True, eq=False)
class Subscription:
    """A core subscription of one connection."""

    pattern: str
    queue: str
    deliver: Callable[[Message], None]


@final
class MemoryServer:
    """A server: ``async with MemoryServer() as server``, then ``MemoryBroker(server)``.

    Entered, it has one task, which makes all calls that nobody waits for. It starts empty: the
    streams and buckets of an engine are made by whoever plays one (``Harness``, ``LocalEngine``).

    Args:
        max_payload: the most bytes of headers and body in a message.

    Attributes:
        answers: the last answers to deliveries.
    """

    def __init__(self, *, max_payload: int = 1_048_576) -> None:
        self.max_payload = max_payload
        self.clockwork = Clockwork()
        self.streams: dict[str, Stream] = {}
        self.answers: deque[Answer] = deque(maxlen=KEPT_ANSWERS)
        self._subscriptions: list[Subscription] = []
        self._manager = trio.open_nursery()

    async def __aenter__(self) -> Self:
        """Start the server's clockwork."""
        nursery = await self._manager.__aenter__()
        nursery.start_soon(self.clockwork.run)
        self._nursery = nursery
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        """Stop the clockwork; calls that are still due are not made."""
        self._nursery.cancel_scope.cancel()
        return await self._manager.__aexit__(kind, error, trace)

    @staticmethod
    def time_ns() -> int:
        """Return the server's wall clock, which follows trio's."""
        return EPOCH_NS + round(trio.current_time() * NS)

    def subscribe(self, subscription: Subscription) -> None:
        """Add a core subscription."""
        self._subscriptions.append(subscription)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Remove a core subscription."""
        self._subscriptions.remove(subscription)

    def publish(self, message: Message) -> bool:
        """Hand a core message to its subscribers, one per queue group; say whether there are any.

        A stream that takes the subject stores it, too, and counts as one who heard it. They hear it
        in the next turn, in the order of their subscribing.
        """
        stream = self.stream_for(message.subject)
        if stream is not None:
            self._store(stream, message.subject, message.body, message.headers, "", None)
        return self._hand_out(message) or stream is not None

    def store(
        self,
        subject: str,
        body: bytes,
        headers: Mapping[str, str],
        msg_id: str,
        expect: int | None,
    ) -> Stored:
        """Store a message; subscribers of its subject see it as well, even of a duplicate.

        So a subscription says what was published, and only the stream what is stored. Of a message
        that is refused nobody hears.

        Raises:
            Missing: no stream takes the subject.
            Conflict: the condition does not hold.
        """
        stream = self.stream_for(subject)
        if stream is None:
            raise Missing(f"no stream takes {subject!r} on this server")
        stored = self._store(stream, subject, body, headers, msg_id, expect)
        seen = {**headers, MSG_ID: msg_id} if msg_id else headers
        self._hand_out(Message(subject=subject, body=body, headers=seen))
        return stored

    def stream_for(self, subject: str) -> Stream | None:
        """Return the stream that takes a subject, None if there is none.

        The first one: real streams may not overlap, and nothing here checks that.
        """
        return next((s for s in self.streams.values() if s.takes(subject)), None)

    def stream(self, name: str) -> Stream:
        """Return a stream.

        Raises:
            Missing: there is none of that name.
        """
        if check_name(name) not in self.streams:
            raise Missing(f"stream {name!r} not found")
        return self.streams[name]

    def bucket(self, name: str) -> Stream:
        """Return a key-value bucket.

        Raises:
            Missing: there is none of that name.
        """
        stream = self.streams.get(f"KV_{check_name(name)}")
        if stream is None:
            raise no_bucket(name)
        return stream

    def ensure_stream(self, spec: StreamSpec, max_per_subject: int = 0) -> None:
        """Create a stream, or change its configuration; its messages stay."""
        if check_name(spec.name) in self.streams:
            self.streams[spec.name].spec = spec
        else:
            self.streams[spec.name] = Stream(spec, max_per_subject)

    def ensure_consumer(self, spec: ConsumerSpec) -> Consumer:
        """Create a durable, or change its configuration.

        A new one gets all that the stream has for its filter. A changed one keeps its leases; those
        that run keep the ``ack_wait`` with which they began.

        Raises:
            Conflict: its filter overlaps another one's on a work queue.
            Missing: no such stream.
        """
        check_name(spec.durable)
        check_filter(spec.filter_subject)
        stream = self.stream(spec.stream)
        work_queue = stream.spec.retention == "workqueue"
        for name, other in stream.consumers.items():
            clashes = overlap(other.spec.filter_subject, spec.filter_subject)
            if work_queue and name != spec.durable and clashes:
                raise Conflict("filtered consumer not unique on workqueue stream")
        consumer = stream.consumers.get(spec.durable)
        if consumer is not None:
            consumer.spec = replace(spec)
            consumer.serve()
            return consumer
        remove = stream.remove if work_queue else _keep
        consumer = Consumer(spec, self.clockwork, stream.get, remove, self.answers)
        stream.consumers[spec.durable] = consumer
        for record in stream.read(spec.filter_subject, self.time_ns()):
            consumer.add(record.sequence)
        return consumer

    def _store(
        self,
        stream: Stream,
        subject: str,
        body: bytes,
        headers: Mapping[str, str],
        msg_id: str,
        expect: int | None,
    ) -> Stored:
        """Store a message and give it to the consumers that want it, unless it is a duplicate."""
        stored = stream.store(
            subject, body, headers, msg_id=msg_id, expect=expect, now_ns=self.time_ns()
        )
        if not stored.duplicate:
            for consumer in stream.consumers.values():
                if consumer.wants(subject):
                    consumer.add(stored.sequence)
        return stored

    def _hand_out(self, message: Message) -> bool:
        """Deliver to all subscribers; of a queue group always to the first, which is as good."""
        served: set[str] = set()
        found = False
        for subscription in self._subscriptions:
            if not matches(subscription.pattern, message.subject):
                continue
            found = True
            if subscription.queue:
                if subscription.queue in served:
                    continue
                served.add(subscription.queue)
            self._deliver(subscription, message)
        return found

    def _deliver(self, subscription: Subscription, message: Message) -> None:
        """Deliver in the next turn: also to one that has unsubscribed by then, as on a network."""
        self.clockwork.post(lambda: subscription.deliver(message))


def _keep(_sequence: int) -> None:
    """Leave an acknowledged message in a stream that is no work queue."""
