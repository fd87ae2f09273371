"""Publishing to streams with acknowledgement: the hot half of the transport.

Two ways, one meaning. ``store`` has a task that waits, and sees everything through; ``post`` has
none, and hands whatever is not an acknowledgement back to its caller:

==============================  ===============================  ================================
what comes                      ``store``                        ``post``: its callback gets
==============================  ===============================  ================================
an acknowledgement              returns ``Stored``               ``Stored``
silence of 5 s, a reconnect     sends again, same id             the same: sends again, same id
a refusal that passes           waits, sends again               ``ApiError``: call ``store``
503: nobody takes the subject   asks the API: waits, or raises   ``Missing``: call ``store``
another refusal                 raises                           that error
the deadline passes             ``NotStored``                    ``NotStored``
too much is queued, too large   waits for room; ``TooLarge``     returns None at once
==============================  ===============================  ================================

Sent again, a message has its first send's id, so the stream's window (5 s for a history) makes one
of the two. Past that the condition protects: ``resend_expect`` goes with every further send. The
first send of a post has none: it is the ordinary one, and must not wait for other steps of its run,
with which it shares a subject (design 8.6).

``Stored.resent`` says that there was a second send. It is what lets the worker tell its own
duplicate from another's: as the answer to a single send, "duplicate" means that somebody else's
message has the id, and nothing of ours was stored (design 8.1).
"""

import re
from collections.abc import Mapping
from typing import final

from trio_dagnats.errors import BrokerError, Missing, NotStored
from trio_dagnats.transport.nats.frames import Frame, Incoming, encode_headers
from trio_dagnats.transport.nats.jsapi import (
    NO_RESPONDERS,
    ApiError,
    JsApi,
    raise_api_error,
    read_reply,
)
from trio_dagnats.transport.nats.link import Link
from trio_dagnats.transport.nats.requests import Lost, Requests
from trio_dagnats.transport.port import NO_HEADERS, OnStored, Stored
from trio_dagnats.transport.rules import check_size
from trio_dagnats.wire.events import Event
from trio_dagnats.wire.names import MSG_ID
from trio_dagnats.wire.subjects import check_msg_id

EXPECT = "Nats-Expected-Last-Subject-Sequence"
"""The header of a conditional store. The server looks at it before it looks at the id: a message
that is stored already gets a conflict when it is sent again with it (contract 14)."""
BUSY_CODES = frozenset(
    {
        10002,  # the account is full: others acknowledge, or are purged
        10008,  # no quorum
        10009,  # another server leads now
        10023,  # out of resources
        10028,  # out of memory
        10047,  # out of storage
        10074,
        10077,  # the store has failed, or is full
        10158,  # a message of this id is on its way
        10163,  # another one to this subject is on its way
        10167,  # too many in flight
    }
)
"""JetStream errors that pass."""


@final
class Publisher:
    """Stores messages; see ``port.Broker.store`` and ``post``.

    Keeps nothing between two calls: what is in flight stands in the table of requests, which
    reconnects and deadlines go through.

    Args:
        link: the connection.
        api: says whether a stream takes a subject.
    """

    def __init__(self, link: Link, api: JsApi) -> None:
        self._link = link
        self._api = api

    async def store(  # noqa: PLR0913 - the port's signature
        self,
        subject: str,
        body: bytes,
        *,
        msg_id: str,
        headers: Mapping[str, str],
        expect_last: int | None,
        resend_expect: int | None,
        deadline: float,
    ) -> Stored:
        """Publish until the server has answered for good, or the deadline has passed.

        Each turn of the loop is one request with sends of its own; ``sends`` counts all of them,
        for a refusal that passes may have come after the message was stored by an earlier send.

        Cancellation: what is queued is not sent any more; what was sent may be stored.
        """
        frame = Frame(subject, body, "", _head(headers, msg_id, expect_last), deadline)
        check_size(frame.size, subject, self._link.path.max_payload)
        if self._link.outbox.full:
            await self._link.outbox.wait_for_room()
        tries = sends = 0

        def again() -> Frame:
            expect = expect_last if resend_expect is None else resend_expect
            return Frame(subject, body, "", _head(headers, msg_id, expect), deadline)

        while True:
            answer, times = await self._link.requests.ask(frame, deadline=deadline, again=again)
            sends += times
            if answer.status != NO_RESPONDERS:
                stored = _read(answer.body, resent=sends > 1)
                if isinstance(stored, Stored):
                    return stored
                why = stored
            elif not await self._api.takes(subject, deadline):
                raise Missing(f"no stream takes {subject!r} on this server")
            else:
                why = "its stream does not answer"
            await self._api.pause_for(tries, deadline, why)
            tries += 1
            frame = again()

    def post(
        self,
        event: Event,
        *,
        resend_expect: int | None = None,
        deadline: float,
        done: OnStored,
    ) -> "Post | None":
        """Publish without a task that waits; see ``port.Broker.post``.

        Called twice for every task. Full or too large is no error here but None, so that the one
        way that can wait and explain is ``store``.
        """
        link = self._link
        subject, msg_id, headers, body = event
        head = _head(headers, msg_id, None)
        if len(head) + len(body) > link.path.max_payload or link.outbox.full:
            return None
        requests = link.requests
        post = Post(
            requests,
            subject,
            body,
            head,
            headers,
            msg_id,
            resend_expect,
            deadline,
            done,
        )
        requests.send(post, post)
        return post


@final
class Post(Frame):
    """A publish for which no task waits; see ``port.Pending``. One is made for every event.

    It is its own first frame, whose ``not_after`` is the deadline of that time.

    Written to by the table of requests (``token``, ``sends``, ``frame``) and by its owner, who may
    move ``deadline``: the sweep looks at that one, so a drain can end the wait earlier. The frame
    that is queued keeps the deadline with which it was made.

    Args:
        requests: the table of requests in flight.
        subject: where it goes.
        body: the bytes.
        head: the headers of the first send.
        headers: those of every send, beside its id.
        msg_id: the message's id.
        expect: the subject's last sequence that further sends expect.
        deadline: trio time.
        done: told what became of it.
    """

    __slots__ = (
        "_done",
        "_expect",
        "_headers",
        "_later",
        "_msg_id",
        "_requests",
        "deadline",
        "sends",
        "token",
    )

    token: bytes

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of one message
        self,
        requests: Requests,
        subject: str,
        body: bytes,
        head: bytes,
        headers: Mapping[str, str],
        msg_id: str,
        expect: int | None,
        deadline: float,
        done: OnStored,
    ) -> None:
        self.subject = subject
        self.body = body
        self.head = head
        self.not_after = self.deadline = deadline
        self.sent_at = 0.0
        self.sends = 1
        self._later: Frame | None = None
        self._headers = headers
        self._msg_id = msg_id
        self._expect = expect
        self._done = done
        self._requests = requests

    @property
    def frame(self) -> Frame:
        """See ``requests.Request``."""
        return self._later or self  # stored, itself would be a cycle, and so garbage

    @frame.setter
    def frame(self, frame: Frame) -> None:
        self._later = frame

    def again(self) -> Frame:
        """See ``requests.Request``; conditional, unless nothing is expected."""
        head = _head(self._headers, self._msg_id, self._expect)
        return Frame(self.subject, self.body, "", head, self.deadline)

    def answered(self, message: Incoming) -> None:
        """See ``requests.Request``; the unusual answers: a status, an error, a duplicate."""
        if message.status:
            self._done(Missing(f"nobody takes {self.subject!r} for now"))
            return
        try:
            stored = _read(message.body, resent=self.sends > 1)
        except BrokerError as error:
            self._done(error)
        else:
            self._done(stored if isinstance(stored, Stored) else ApiError(0, stored))

    def acknowledged(self, found: re.Match[bytes]) -> None:
        """See ``requests.Request``; what the pattern finds says nothing of a duplicate."""
        # As its own constructor does it, which is one call more.
        self._done(tuple.__new__(Stored, (int(found["sequence"]), False, self.sends > 1)))

    def failed(self, error: NotStored | Lost) -> None:
        """See ``requests.Request``; it is never lost, for it can be sent again."""
        self._done(NotStored(str(error)))

    def abandon(self) -> None:
        """See ``port.Pending``."""
        self._requests.drop(self)


def _head(headers: Mapping[str, str], msg_id: str, expect: int | None) -> bytes:
    """Write the headers of a send; empty for none.

    A printable id needs no look at each of its characters, and is all that most events have.
    """
    if expect is None and not headers and msg_id.isprintable():  # nearly always, so in one piece
        return f"NATS/1.0\r\n{MSG_ID}: {msg_id}\r\n\r\n".encode() if msg_id else b""
    full = dict(headers) if headers is not NO_HEADERS else {}
    if msg_id:
        check_msg_id(msg_id)
        full[MSG_ID] = msg_id
    if expect is not None:
        full[EXPECT] = str(expect)
    return encode_headers(full)


def _read(body: bytes, *, resent: bool) -> Stored | str:
    """Read a publish acknowledgement, or the text of an error that passes.

    Raises:
        Conflict: another last sequence than the expected one.
        Missing: the stream is gone.
        ApiError: another refusal, or no acknowledgement at all.
    """
    found = read_reply(body)
    error, sequence = found.get("error"), found.get("seq")
    if isinstance(error, dict):
        if error.get("err_code") in BUSY_CODES or error.get("code") == int(NO_RESPONDERS):
            return f"{error.get('description')} (JetStream error {error.get('err_code')})"
        raise_api_error(error)
    if not isinstance(sequence, int):
        raise ApiError(0, f"no acknowledgement of a stream: {body[:80]!r}")
    return Stored(sequence, found.get("duplicate", False) is True, resent)
