"""Takes messages of our own subscriptions from the front of what came in.

One look at a control line costs a third of what nats-py's parser and its message objects do.

What stands at the front decides::

    an acknowledgement, in one pattern   ──> acks.take        two thirds of all messages
    MSG or HMSG with a number of ours    ──> its subscription        or dropped, if it is gone
    the beginning of one of ours         ──> how many bytes are missing
    anything else, or half a line        ──> left for nats-py: PING, INFO, -ERR, its own messages

Callbacks run in here, so they must not wait; what one raises is logged, and the next message is
taken all the same. Only a line that no server sends raises: then nothing after it can be read.
"""

import re
from collections.abc import Callable

from trio_dagnats.errors import WireError
from trio_dagnats.transport.nats.frames import Incoming, decode_headers
from trio_dagnats.transport.nats.subscriptions import FIRST_SID, Subscription, Subscriptions
from trio_dagnats.transport.rules import WHAT_WAS_STORED, callback_failed

_FIRST_SID_DIGITS = len(str(FIRST_SID))
_END = b"\r\n"
_FEWEST_OF_HMSG = 5
_FEWEST_WORDS = {b"MSG": 4, b"HMSG": _FEWEST_OF_HMSG}
"""The words of a control line without a reply subject."""
_MOST_DIGITS = 9
"""Digits of a size: a server takes 64 MiB in a message at the most."""
_STORED = rb'\{"stream":"[^"\\]*", ?(?:"domain":"[^"\\]*", ?)?"seq":(?P<sequence>\d{1,19})\}'


def acknowledgements(inbox: str, sid: int) -> Callable[[bytes, int], re.Match[bytes] | None]:
    """Return how to find a message which says that one of ours is stored: in one look.

    Anything unusual about it (an error, a duplicate) is left to whoever reads other answers.

    Args:
        inbox: the prefix of reply subjects, without their last token, which is a number.
        sid: the number of its subscription.

    Returns:
        Takes bytes and where the message begins; finds its ``token``, ``body`` and ``sequence``.
        The caller has to look whether the body has the ``size`` that the line says.
    """
    line = b"MSG %b" % re.escape(inbox.encode())
    line += rb"\.(?P<token>\d+) %d (?P<size>\d{1,9})\r\n" % sid
    return re.compile(line + rb"(?P<body>%b)\r\n" % _STORED).match


def take_messages(  # noqa: C901 - a part of it on its own would be a call for each message
    raw: bytes, subscriptions: Subscriptions
) -> tuple[int, int]:
    """Deliver whole messages from the front; messages of unknown subscriptions of ours are dropped.

    Returns:
        How many bytes they were, and how many are missing for the message of ours that begins
        there; 0 if what is there is for nats-py.

    Raises:
        WireError: no message has such sizes; the rest of what came in cannot be read either.
    """
    at, size = 0, len(raw)
    known, (acknowledgement, acknowledged) = subscriptions.by_text, subscriptions.acks
    while True:
        found = acknowledgement(raw, at)
        if found is not None and found.end("body") - found.start("body") == int(found["size"]):
            at = found.end()
            try:
                acknowledged(found)
            except Exception as error:  # noqa: BLE001 - the border to what takes messages; it is logged
                callback_failed(WHAT_WAS_STORED, error)
            continue
        end = raw.find(_END, at)
        if end < 0:
            return at, 0
        words = raw[at:end].split(b" ")
        fewest = _FEWEST_WORDS.get(words[0])
        if fewest is None or len(words) < fewest:
            return at, 0
        subscription = known.get(words[2])
        if subscription is None and len(words[2]) < _FIRST_SID_DIGITS:
            return at, 0
        start = end + 2
        length = words[-1]
        if (
            len(words) > fewest + 1
            or not length.isdigit()
            or len(length) > _MOST_DIGITS
            or (fewest == _FEWEST_OF_HMSG and not _head_fits(words))
        ):
            raise WireError(f"not a message of the NATS protocol: {raw[at : end - 2][:80]!r}")
        end = start + int(length)
        if end + 2 > size:
            return at, end + 2 - size
        at = end + 2
        if subscription is None:
            continue
        try:
            if subscription.plain is not None and len(words) == 5 == fewest + 1:
                subscription.plain(words[1], words[3], raw[start:end])
            else:
                subscription.deliver(_message(raw, start, words))
        except Exception as error:  # noqa: BLE001 - the same
            callback_failed(subscription.subject, error)


def _head_fits(words: list[bytes]) -> bool:
    """Say whether an HMSG has a number of header bytes, and no more than bytes."""
    head, length = words[-2], words[-1]
    return head.isdigit() and len(head) <= len(length) and int(head) <= int(length)


def first_message(
    raw: bytes, subscriptions: Subscriptions
) -> tuple[Subscription | None, Incoming, bytes]:
    """Return the message at the front, whole and ours, its subscription, and what follows it.

    For large messages: the caller can let go of ``raw`` before the message is delivered.
    """
    end = raw.find(_END)
    words = raw[:end].split(b" ")
    rest = raw[end + 4 + int(words[-1]) :]
    return subscriptions.by_text.get(words[2]), _message(raw, end + 2, words), rest


def _message(raw: bytes, start: int, words: list[bytes]) -> Incoming:
    """Cut a message out; ``words`` is its control line, ``start`` where the rest begins."""
    reply = words[3] if len(words) > _FEWEST_WORDS[words[0]] else b""
    end = start + int(words[-1])
    if words[0] == b"MSG":
        names = words[1].decode("utf-8", "replace"), reply.decode("utf-8", "replace")
        return Incoming(*names, raw[start:end])
    head = start + int(words[-2])
    return incoming(words[1], reply, raw[start:head], raw[head:end])


def incoming(subject: bytes, reply: bytes, headers: bytes, body: bytes) -> Incoming:
    """Make a message of its parts as they came in.

    The server lets any bytes be a subject. In one that is no UTF-8 they are replaced, as in
    headers: who sent it gets no answer, and everybody else is served.
    """
    names = subject.decode("utf-8", "replace"), reply.decode("utf-8", "replace")
    if not headers:
        return Incoming(*names, body)
    status, note, fields = decode_headers(headers)
    return Incoming(*names, body, status, note, fields)
