"""What goes through the port: messages, records, entries, and what to create on a server.

Times are wall-clock nanoseconds (int) in names that end in ``_ns``.

Frozen, so that what a callback gets may be kept. ``Stored`` alone is a tuple: one is made for each
of a task's two events. Made by the brokers (what comes in) and by their callers (specifications).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Literal, NamedTuple, final

from trio_dagnats.wire.trace import NO_HEADERS

__all__ = [
    "FOREVER",
    "FRESH",
    "NO_HEADERS",
    "ConsumerSpec",
    "ConsumerState",
    "Entry",
    "Message",
    "PullEnd",
    "Record",
    "Stored",
    "StreamSpec",
]

FOREVER = float("inf")
"""A deadline (trio time) or a length (seconds) that never comes."""
FRESH = 10.0
"""Seconds between two signs of life that an intake asks for, if its leases are long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One core NATS message. ``reply`` is empty when no answer is wanted, or where none can go."""

    subject: str
    body: bytes
    reply: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@final
class Stored(NamedTuple):
    """The server's acknowledgement of a stored message.

    ``duplicate`` says that the id was known already: nothing new was stored and ``sequence`` is
    that of the earlier message. ``resent`` says that the frame went out more than once.

    Together they say whose message is stored:

    =============  ============  ======================================================
    ``duplicate``  ``resent``    stored is
    =============  ============  ======================================================
    no             either        this message
    yes            yes           taken for this one, by an earlier send
    yes            no            *not* this one: another message has the id
    =============  ============  ======================================================
    """

    sequence: int
    duplicate: bool = False
    resent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One message read back from a stream. ``time_ns`` is when the server stored it."""

    sequence: int
    subject: str
    body: bytes
    time_ns: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One value of a key-value bucket. ``revision`` is the bucket's stream sequence."""

    key: str
    value: bytes
    revision: int
    time_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSpec:
    """A stream to create or to bring up to date; times in nanoseconds, 0 for no limit."""

    name: str
    subjects: tuple[str, ...]
    retention: Literal["limits", "workqueue"] = "limits"
    storage: Literal["file", "memory"] = "file"
    duplicate_window_ns: int = 120_000_000_000
    max_age_ns: int = 0
    allow_atomic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSpec:
    """A durable pull consumer with explicit acks, delivering all; times in nanoseconds.

    ``max_ack_pending`` counts what was delivered and not answered, messages that are held back with
    a delay included. ``max_deliver`` -1 is no bound: how often a task may come again is decided by
    its history, not by the server.
    """

    stream: str
    durable: str
    filter_subject: str
    ack_wait_ns: int
    max_ack_pending: int = 1000
    max_deliver: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerState:
    """A consumer as the server reports it. ``durable`` is empty for an ephemeral one."""

    name: str
    durable: str
    filter_subject: str
    ack_wait_ns: int
    max_ack_pending: int
    pending: int = 0
    ack_pending: int = 0
    waiting: int = 0


class PullEnd(Enum):
    """Why credits of a pull come back without a message."""

    EXPIRED = auto()
    """The pull's time is over; the queue had no more."""
    CONSUMER_GONE = auto()
    """The consumer or the stream does not exist (any more): create it again, after a pause."""
    REFUSED = auto()
    """The server refused it for now (too many pulls, leader change): pull again, after a pause."""
