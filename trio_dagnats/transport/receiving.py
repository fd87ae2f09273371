"""The receiving half of the port: deliveries of task messages, and the intakes they come from."""

from collections.abc import Mapping
from typing import Protocol

from trio_dagnats.transport.values import FOREVER, PullEnd


class Delivery(Protocol):
    """One task message as handed to this process once.

    ``stream_sequence`` is the message's own and stays the same through redeliveries; ``deliveries``
    counts these, those included that nobody has worked on: handed back, or sent to an inbox whose
    owner was gone (contract H39). ``published_ns`` is when the server stored the message.
    ``received_at`` is the trio time of its arrival here. ``sent_after`` is a trio time before which
    the server cannot have sent it: bytes may be on their way for long, and the lease begins when
    they are sent.

    The three terminal answers queue one frame and never wait, so that they can be called while a
    cancellation unwinds; the second one on a delivery is ignored. A frame that is still queued
    when ``not_after`` (trio time) has passed is dropped, never sent: a stale answer would take
    the message from the worker that holds it by then.
    """

    subject: str
    body: bytes
    headers: Mapping[str, str]
    stream_sequence: int
    deliveries: int
    published_ns: int
    received_at: float
    sent_after: float

    def ack(self, *, not_after: float = FOREVER) -> None:
        """Tell the server that the message is done (``+ACK``); it leaves the queue."""
        ...

    def nak(self, delay: float = 0.0, *, not_after: float = FOREVER) -> None:
        """Hand the message back, to be delivered again after ``delay`` seconds (``-NAK``)."""
        ...

    def term(self, *, not_after: float = FOREVER) -> None:
        """Take the message out of the queue for good (``+TERM``)."""
        ...

    def forget(self) -> None:
        """Say nothing about the delivery, ever: its lease is lost, or it is another's twin."""
        ...

    async def renew(self, *, deadline: float) -> float:
        """Renew the lease (``+WPI``), confirmed; return the trio time of the confirmed *send*.

        Raises:
            NotStored: no confirmation before ``deadline``.
        """
        ...


class Intake(Protocol):
    """The open subscription through which one durable consumer hands out its messages."""

    def pull(self, batch: int, expires: float, *, once: bool = False) -> None:
        """Ask for up to ``batch`` messages during ``expires`` seconds; queues, never waits.

        Each credit ends as one ``delivered`` or comes back through ``returned``. A connection
        lost in between is not the caller's business: the intake asks again after the reconnect.

        Args:
            batch: how many messages.
            expires: seconds after which the pull ends.
            once: end it as soon as it has brought something and there is no more. No other pull
                may be open then: the server does not say what such a pull has left.
        """
        ...

    def left_behind(self) -> int:
        """Return how many messages were still to be delivered when the last one was sent.

        Without those that were delivered before, and 0 as long as none came.
        """
        ...


class IntakeSink(Protocol):
    """Where an intake puts what it gets; called by the transport, must not wait.

    What ``delivered`` raises is logged, and the next messages arrive. The transport says nothing
    about that delivery any more, so it comes again after its lease, and its credit is used; what
    the sink has counted for it until then is the sink's to give back.
    """

    def delivered(self, delivery: Delivery) -> None:
        """Take one message; one credit is used."""
        ...

    def returned(self, count: int, why: PullEnd) -> None:
        """Take back ``count`` credits whose pull has ended without messages."""
        ...
