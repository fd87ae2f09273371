"""Publishing to streams with acknowledgement: the hot half of the transport."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import final

from pydantic_core import from_json

from trio_dagnats.errors import BrokerError, Missing, NotStored
from trio_dagnats.transport.nats.frames import Frame, Incoming, encode_headers
from trio_dagnats.transport.nats.jsapi import NO_RESPONDERS, ApiError, JsApi, raise_api_error
from trio_dagnats.transport.nats.link import Link
from trio_dagnats.transport.nats.requests import Lost
from trio_dagnats.transport.port import NO_HEADERS, OnStored, Stored
from trio_dagnats.transport.rules import check_size

MSG_ID = "Nats-Msg-Id"
EXPECT = "Nats-Expected-Last-Subject-Sequence"
BUSY_CODES = frozenset({10008, 10009, 10074, 10077})
"""JetStream errors that pass: no quorum, out of memory or store for now, too many in flight."""


@final
class Publisher:
    """Stores messages; see ``port.Broker.store`` and ``post``."""

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
        """Publish until the server has answered for good, or the deadline has passed."""
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
                if stored is not None:
                    return stored
            elif not await self._api.takes(subject, deadline):
                raise Missing(f"no stream takes {subject!r} on this server")
            await self._api.pause_for(tries, deadline)
            tries += 1
            frame = again()

    def post(  # noqa: PLR0913 - the port's signature
        self,
        subject: str,
        body: bytes,
        *,
        msg_id: str,
        headers: Mapping[str, str],
        resend_expect: int | None,
        deadline: float,
        done: OnStored,
    ) -> "Post | None":
        """Publish without a task that waits; see ``port.Broker.post``."""
        frame = Frame(subject, body, "", _head(headers, msg_id, None), deadline)
        if frame.size > self._link.path.max_payload or self._link.outbox.full:
            return None
        post = Post(self._link, frame, partial(_head, headers, msg_id, resend_expect), done)
        self._link.requests.send(post)
        return post


@final
class Post:
    """A publish for which no task waits; see ``port.Posted``. One is made for every event.

    Args:
        link: the connection.
        frame: the first send; its ``not_after`` is the deadline.
        head: makes the headers of further sends.
        done: told what became of it.
    """

    __slots__ = ("_done", "_head", "_link", "deadline", "frame", "sends", "token")

    def __init__(self, link: Link, frame: Frame, head: Callable[[], bytes], done: OnStored) -> None:
        self.frame = frame
        self.deadline = frame.not_after
        self.sends = 1
        self.token = ""
        self._head = head
        self._done = done
        self._link = link

    def again(self) -> Frame:
        """See ``requests.Request``."""
        return Frame(self.frame.subject, self.frame.body, "", self._head(), self.deadline)

    def answered(self, message: Incoming) -> None:
        """See ``requests.Request``."""
        self._done(self._verdict(message))

    def failed(self, error: NotStored | Lost) -> None:
        """See ``requests.Request``; it is never lost, for it can be sent again."""
        self._done(NotStored(str(error)))

    def abandon(self) -> None:
        """See ``port.Posted``."""
        self._link.requests.drop(self)

    def _verdict(self, message: Incoming) -> Stored | BrokerError:
        if message.status:
            return Missing(f"nobody takes {self.frame.subject!r} for now")
        try:
            stored = _read(message.body, resent=self.sends > 1)
        except BrokerError as error:
            return error
        return stored or ApiError(0, "refused for now")


def _head(headers: Mapping[str, str], msg_id: str, expect: int | None) -> bytes:
    if expect is None and not headers and msg_id.isprintable():  # nearly always, so in one piece
        return f"NATS/1.0\r\n{MSG_ID}: {msg_id}\r\n\r\n".encode() if msg_id else b""
    full = dict(headers) if headers is not NO_HEADERS else {}
    if msg_id:
        full[MSG_ID] = msg_id
    if expect is not None:
        full[EXPECT] = str(expect)
    return encode_headers(full)


def _read(body: bytes, *, resent: bool) -> Stored | None:
    """Read a publish acknowledgement; None for an error that passes."""
    found = from_json(body)
    error = found.get("error")
    if error is None:
        return Stored(sequence=found["seq"], duplicate=bool(found.get("duplicate")), resent=resent)
    if error.get("err_code") in BUSY_CODES or error.get("code") == int(NO_RESPONDERS):
        return None
    return raise_api_error(error)
