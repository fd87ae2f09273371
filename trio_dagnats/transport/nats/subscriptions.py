"""Our own subscriptions: numbers, callbacks, and what to tell the server after a reconnect.

A subscription is known here before the server knows it, and longer: ``add``, SUB, ..., UNSUB,
``remove``. In between each message finds its callback; before and after, one with a number of ours
is dropped.

After a lost connection the server knows none of them: on our own path all are written again in one
go, before any frame, so no answer can come to a subject that nobody hears; nats-py replays those of
the public path by itself. Only then ``missed`` tells each one that it may have missed something.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple, final

from trio_dagnats.transport.nats.frames import Incoming
from trio_dagnats.transport.rules import callback_failed
from trio_dagnats.wire.subjects import check_filter, check_queue

FIRST_SID = 1_000_000_000
"""nats-py counts its own subscriptions from 1; ours must never meet them."""

OnIncoming = Callable[[Incoming], None]
OnPlain = Callable[[bytes, bytes, bytes], None]
"""Takes the subject, the reply subject and the body of a message without headers."""


@final
@dataclass(slots=True, eq=False)
class Subscription:
    """A subscription. ``gap`` is called after a reconnect: messages may have been missed.

    ``plain``, if there is one, may get messages instead of ``deliver`` that want an answer and have
    no headers.
    """

    sid: int
    subject: str
    queue: str
    deliver: OnIncoming
    gap: Callable[[], None] | None = None
    plain: OnPlain | None = None

    def take(self, message: Incoming) -> None:
        """Deliver a message that came in the rare ways; the parser does the same in place."""
        try:
            self.deliver(message)
        except Exception as error:  # noqa: BLE001 - the border to what takes messages; it is logged
            callback_failed(self.subject, error)

    def missed(self) -> None:
        """Tell that messages may have been missed."""
        try:
            if self.gap is not None:
                self.gap()
        except Exception as error:  # noqa: BLE001 - the same
            callback_failed(self.subject, error)

    def sub(self) -> bytes:
        """Return the line that subscribes."""
        queue = f"{self.queue} " if self.queue else ""
        return f"SUB {self.subject} {queue}{self.sid}\r\n".encode()

    def unsub(self) -> bytes:
        """Return the line that ends the subscription on the server."""
        return f"UNSUB {self.sid}\r\n".encode()


@final
class Acks(NamedTuple):
    """How the messages are found that are two thirds of all, and who takes what was found."""

    match: Callable[[bytes, int], re.Match[bytes] | None]
    take: Callable[[re.Match[bytes]], None]


@final
class Subscriptions:
    """All our subscriptions of one connection, in the order of their making.

    Attributes:
        by_text: the same by their numbers as the protocol writes them; for the parser.
        acks: the ordinary acknowledgements, in one look; for the parser.
    """

    def __init__(self) -> None:
        self._numbers = count(FIRST_SID)
        self._by_sid: dict[int, Subscription] = {}
        self.by_text: dict[bytes, Subscription] = {}
        self.acks = Acks(re.compile(rb"(?!)").match, _nothing)

    def add(
        self,
        subject: str,
        deliver: OnIncoming,
        *,
        queue: str = "",
        gap: Callable[[], None] | None = None,
        plain: OnPlain | None = None,
    ) -> Subscription:
        """Make a subscription; the caller tells the server.

        Raises:
            UsageError: the subject or the queue group cannot stand in the line that subscribes.
        """
        if queue:
            check_queue(queue)
        subscription = Subscription(
            next(self._numbers), check_filter(subject), queue, deliver, gap, plain
        )
        self._by_sid[subscription.sid] = subscription
        self.by_text[b"%d" % subscription.sid] = subscription
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Forget a subscription; what still comes for it is dropped."""
        self._by_sid.pop(subscription.sid, None)
        self.by_text.pop(b"%d" % subscription.sid, None)

    def find(self, sid: int) -> Subscription | None:
        """Return the subscription of a number, None if it is not ours."""
        return self._by_sid.get(sid)

    def all(self) -> list[Subscription]:
        """Return all subscriptions."""
        return list(self._by_sid.values())


def _nothing(_: re.Match[bytes]) -> None:
    """Take what is never found."""
