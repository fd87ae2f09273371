"""Publishing to streams with acknowledgement: the hot half of the transport."""

from collections.abc import Mapping
from typing import final

from pydantic_core import from_json

from trio_dagnats.errors import Missing
from trio_dagnats.transport.nats.frames import Frame
from trio_dagnats.transport.nats.jsapi import NO_RESPONDERS, JsApi, raise_api_error
from trio_dagnats.transport.nats.link import Link
from trio_dagnats.transport.port import NO_HEADERS, Stored
from trio_dagnats.transport.rules import check_size

MSG_ID = "Nats-Msg-Id"
EXPECT = "Nats-Expected-Last-Subject-Sequence"
HEADERS_MOST = 4096
"""Bytes that our headers stay below: smaller bodies need no exact look at their size."""
BUSY_CODES = frozenset({10008, 10009, 10074, 10077})
"""JetStream errors that pass: no quorum, out of memory or store for now, too many in flight."""


@final
class Publisher:
    """Stores messages; see ``port.Broker.store``."""

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
        frame = Frame(subject, body, "", _headers(headers, msg_id, expect_last), deadline)
        most = self._link.path.max_payload
        if len(body) + HEADERS_MOST > most:
            check_size(frame.size, subject, most)
        if self._link.outbox.full:
            await self._link.outbox.wait_for_room()
        tries = sends = 0

        def again() -> Frame:
            expect = expect_last if resend_expect is None else resend_expect
            return Frame(subject, body, "", _headers(headers, msg_id, expect), deadline)

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


def _headers(headers: Mapping[str, str], msg_id: str, expect: int | None) -> Mapping[str, str]:
    if not msg_id and expect is None:
        return headers
    full = dict(headers) if headers is not NO_HEADERS else {}
    if msg_id:
        full[MSG_ID] = msg_id
    if expect is not None:
        full[EXPECT] = str(expect)
    return full


def _read(body: bytes, *, resent: bool) -> Stored | None:
    """Read a publish acknowledgement; None for an error that passes."""
    found = from_json(body)
    error = found.get("error")
    if error is None:
        return Stored(sequence=found["seq"], duplicate=bool(found.get("duplicate")), resent=resent)
    if error.get("err_code") in BUSY_CODES or error.get("code") == int(NO_RESPONDERS):
        return None
    return raise_api_error(error)
