"""Takes messages of our own subscriptions from the front of what came in.

One look at a control line costs a third of what nats-py's parser and its message objects do.
"""

from collections.abc import Mapping

from trio_dagnats.transport.nats.frames import Incoming, decode_headers
from trio_dagnats.transport.nats.routes import FIRST_SID, Route

_FIRST_SID_DIGITS = len(str(FIRST_SID))
_END = b"\r\n"
_FEWEST_WORDS = {b"MSG": 4, b"HMSG": 5}
"""The words of a control line without a reply subject."""


def take_messages(raw: bytes, routes: Mapping[bytes, Route]) -> tuple[int, int]:
    """Deliver whole messages from the front; messages of unknown subscriptions of ours are dropped.

    Returns:
        How many bytes they were, and how many are missing for the message of ours that begins
        there; 0 if what is there is for nats-py.
    """
    at, size = 0, len(raw)
    while True:
        end = raw.find(_END, at)
        if end < 0:
            return at, 0
        words = raw[at:end].split(b" ")
        fewest = _FEWEST_WORDS.get(words[0])
        if fewest is None or len(words) < fewest:
            return at, 0
        route = routes.get(words[2])
        if route is None and len(words[2]) < _FIRST_SID_DIGITS:
            return at, 0
        start = end + 2
        end = start + int(words[-1])
        if end + 2 > size:
            return at, end + 2 - size
        at = end + 2
        if route is None:
            continue
        if fewest == 5:
            reply = words[3] if len(words) > 5 else b""
            head = start + int(words[-2])
            route.deliver(incoming(words[1], reply, raw[start:head], raw[head:end]))
        elif route.plain is not None:
            route.plain(words[1], raw[start:end])
        else:
            reply = words[3] if len(words) > 4 else b""
            route.deliver(Incoming(words[1].decode(), reply.decode(), raw[start:end]))


def incoming(subject: bytes, reply: bytes, headers: bytes, body: bytes) -> Incoming:
    """Make a message of its parts as they came in."""
    if not headers:
        return Incoming(subject.decode(), reply.decode(), body)
    status, note, fields = decode_headers(headers)
    return Incoming(subject.decode(), reply.decode(), body, status, note, fields)
