"""Core messages of the in-memory broker: requests and subscriptions.

Core messages are heard by who listens at that moment and by nobody else, and a stream that takes
the subject stores them, too. A subscription whose connection is cut misses what comes; after the
line is mended it is told so (``None``), once, and has to look for itself.

Functions of a server and a line, not methods of the broker: that one is long enough. Called by
``MemoryBroker`` alone; ``checked`` by its stores and posts as well, so that all that is sent goes
through one check, as every frame of the real connection does.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from itertools import count

import trio

from trio_dagnats.errors import Missing, NotStored
from trio_dagnats.transport.memory.line import Line
from trio_dagnats.transport.memory.server import MemoryServer, Subscription
from trio_dagnats.transport.port import Message, OnMessage
from trio_dagnats.transport.rules import callback_failed, check_size
from trio_dagnats.wire.subjects import (
    check_address,
    check_filter,
    check_msg_id,
    check_queue,
    clean_headers,
)

LISTEN_PATIENCE = 5.0
"""Seconds for a subscription to be confirmed, as on a real connection."""

_inboxes = count(1)
"""Numbers for reply subjects; one count for all servers of the process, which harms nobody."""


def new_inbox() -> str:
    """Return a subject for answers that nobody else has."""
    return f"_INBOX.{next(_inboxes)}"


def checked(
    server: MemoryServer,
    subject: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    msg_id: str = "",
    reply: str = "",
) -> Mapping[str, str]:
    """Check a message as a real connection does; return its headers as they are sent.

    Before anything else, and before a turn is taken: what is refused there is refused here with the
    same error, and a test that passes here does not close a real connection.

    Raises:
        UsageError: a part of it cannot stand in a line of the protocol.
        TooLarge: it is more than the server takes.
    """
    check_address(subject, reply)
    check_msg_id(msg_id)
    headers = clean_headers(headers)
    size = len(body) + sum(len(name) + len(value) + 4 for name, value in headers.items())
    check_size(size, subject, server.max_payload)
    return headers


async def ask(
    server: MemoryServer, line: Line, subject: str, body: bytes, timeout: float
) -> Message:
    """Send a request and return the first answer; see ``port.Broker.request``.

    Later answers are dropped. The subscription for them is made before the request is sent: an
    answer may come in the same turn.

    Raises:
        Missing: nobody serves the subject.
        NotStored: no answer in time, or the line was not mended in time.
    """
    deadline = trio.current_time() + timeout
    answers: list[Message] = []
    answered = trio.Event()

    def take(message: Message) -> None:  # the clockwork's call: in a later turn
        answers.append(message)
        answered.set()

    inbox = Subscription(new_inbox(), "", take)
    server.subscribe(inbox)
    try:
        await line.turn(deadline)
        if not server.publish(Message(subject=subject, body=body, reply=inbox.pattern)):
            raise Missing(f"nobody serves {subject!r} on this server")
        with trio.move_on_at(deadline):
            await answered.wait()
    finally:
        server.unsubscribe(inbox)
    if not answers:
        raise NotStored(f"no answer from {subject!r} within {timeout:g} s")
    return answers[0]


@asynccontextmanager
async def listening(
    server: MemoryServer, line: Line, subject: str, on_message: OnMessage, queue: str
) -> AsyncIterator[None]:
    """Subscribe for the length of a block; see ``port.Broker.listen``.

    What the callback raises is logged and does it no harm, as on a real connection.

    Raises:
        NotStored: the line was not mended within 5 seconds.
    """
    check_filter(subject)
    if queue:
        check_queue(queue)
    await line.turn(trio.current_time() + LISTEN_PATIENCE)

    # Called for messages by ``deliver``, and by the line with ``None`` when it is mended: the same
    # guard around both, for a callback may choke on either.
    def hear(message: Message | None) -> None:
        try:
            on_message(message)
        except Exception as error:  # noqa: BLE001 - the border to what takes messages; it is logged
            callback_failed(subject, error)

    def deliver(message: Message) -> None:
        if line.connected:  # else it is missed, and the listener told so when the line is mended
            hear(message)

    subscription = Subscription(subject, queue, deliver)
    server.subscribe(subscription)
    line.listeners.append(hear)
    try:
        yield
    finally:
        line.listeners.remove(hear)
        server.unsubscribe(subscription)
