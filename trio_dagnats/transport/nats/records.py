"""Reading stored messages back: by an ephemeral consumer, or the newest one directly.

The consumer's creation says how many messages there are, so a read is three requests and one
answer per message, however far the stream reaches back. (Measured against STREAM.MSG.GET with
``next_by_subj``, which costs a request per message and cannot begin at a time.)

Three ways to read, and what each is for:

==============  =========================  ================================================
``read``        ephemeral consumer         a history from a sequence or a time on
``newest``      the same, last of each     all keys of a bucket
``newest_of``   direct, ``multi_last``     known keys, at once (servers from 2.11 on)
``last``        ``STREAM.MSG.GET``         the newest message of one subject
==============  =========================  ================================================

A read with a consumer::

    CONSUMER.CREATE ──> num_pending: how many there are *now*
        │
        ├─ 0 ──> []
        │
        └─ n ──> CONSUMER.MSG.NEXT, parts of 1000 messages and 2 MiB, until n have come
                    │ a part brings nothing, or the connection was lost in it
                    └──> all of it again, with a new consumer, until the deadline
    CONSUMER.DELETE in any case, unconfirmed; the server forgets the consumer by itself after 10 s

What is stored after the consumer was made is not part of the answer: callers that follow a history
subscribe first, and read then (``transport.news``).
"""

import base64
import json
from collections.abc import Mapping, Sequence
from secrets import token_hex
from typing import cast, final

import trio

from trio_dagnats.errors import NotStored
from trio_dagnats.transport.nats.frames import Frame, Incoming, decode_ack, decode_headers
from trio_dagnats.transport.nats.jsapi import MESSAGE_NOT_FOUND, ApiError, JsApi
from trio_dagnats.transport.nats.link import Link
from trio_dagnats.transport.port import Record
from trio_dagnats.wire.subjects import check_key
from trio_dagnats.wire.text import parse_rfc3339, rfc3339, whole

IDLE_NS = 10_000_000_000
"""The server forgets a reader's consumer after this, if we could not delete it."""
PART = 1000
PART_BYTES = 2 * 1024 * 1024
"""Messages and bytes of one pull or batch. All of it may stand in the server's buffer for this
connection at once. On more than its ``max_pending``, which is never less than its ``max_payload``
but can be little more, the server closes the connection as a slow consumer."""
LINE_BYTES = 8 * 1024
"""Bytes that a message needs beside its headers and its body: two subjects and numbers."""
_NO_MORE = frozenset({"204", "404"})
"""The end of several answers, and that there are none at all."""


@final
class _Gathering:
    """Collects the messages of one pull, up to ``most`` or until the server ends it.

    Called as messages come in; ``done`` wakes the one task that waits in ``Records._ask``. What
    came before the end is kept whatever the end was: the caller counts.

    Args:
        records: where to put them; shared by the parts of one read.
        most: how many were asked for.
    """

    def __init__(self, records: list[Record], most: int) -> None:
        self._records = records
        self._left = most
        self.done = trio.Event()

    def take(self, message: Incoming) -> None:
        if message.status:
            self.done.set()
            return
        _, sequence, time_ns = decode_ack(message.reply)
        self._records.append(
            Record(
                sequence=sequence,
                subject=message.subject,
                body=message.body,
                time_ns=time_ns,
                headers=message.headers,
            )
        )
        self._left -= 1
        if not self._left:
            self.done.set()

    def gap(self) -> None:
        """A lost connection has lost the rest."""
        self.done.set()


@final
class _Several:
    """Collects direct answers until the server says that it sends no more.

    Unlike a pull, a direct read does not say beforehand how many answers there are: absent keys
    simply have none. So its end is always a status.

    Attributes:
        records: the answers by their subjects.
        able: whether the server has understood the question; None until it has answered.
        complete: nothing was left out for its size.
    """

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.done = trio.Event()
        self.able: bool | None = None
        self.complete = False

    def take(self, message: Incoming) -> None:
        if message.status:
            self.able = message.status in _NO_MORE
            self.complete = not whole(message.headers.get("Nats-Num-Pending", ""))
            self.done.set()
        else:
            record = direct_record(message)
            self.records[record.subject] = record

    def gap(self) -> None:
        """A lost connection has lost the rest: ask again."""
        self.done.set()


_Answers = _Gathering | _Several


@final
class Records:
    """Reads streams; see ``port.Broker.records``.

    Each read stands alone: it has its own inbox, its own consumer, and leaves none of them behind.
    Not for a work queue, whose messages only its durables may read: the server refuses the
    consumer.

    Args:
        link: the connection.
        api: asks the server to make consumers.
    """

    def __init__(self, link: Link, api: JsApi) -> None:
        self._link = link
        self._api = api

    @property
    def _part_bytes(self) -> int:
        """How many bytes may be on their way at once: the largest message fits."""
        return max(PART_BYTES, self._link.path.max_payload + LINE_BYTES)

    async def read(
        self, stream: str, subject: str, *, after: int, since_ns: int, deadline: float
    ) -> list[Record]:
        """Read what is stored now, oldest first.

        With both bounds the consumer begins at the sequence, and the time is looked at here: a
        consumer takes only one beginning.
        """
        start: dict[str, object] = {"deliver_policy": "all"}
        if after:
            start = {"deliver_policy": "by_start_sequence", "opt_start_seq": after + 1}
        elif since_ns:
            start = {"deliver_policy": "by_start_time", "opt_start_time": rfc3339(since_ns)}
        records = await self._gather(stream, subject, start, deadline)
        return [r for r in records if r.sequence > after and r.time_ns >= since_ns]

    async def newest(self, stream: str, subject: str, deadline: float) -> list[Record]:
        """Read the newest message of each subject that matches."""
        return await self._gather(stream, subject, {"deliver_policy": "last_per_subject"}, deadline)

    async def newest_of(
        self, stream: str, subjects: Sequence[str], deadline: float
    ) -> list[Record] | None:
        """Read the newest message of each subject; None if this server cannot do it at once.

        A worker with a backlog asks so for the runs of up to 64 tasks: 40 us a task became 7
        (design 8.5). A lost connection asks again, for no answer means neither yes nor no. The
        server ends an answer that has grown too large: the rest is asked for again.

        Raises:
            NotStored: no answer in time.
        """
        found: dict[str, Record] = {}
        most = PART_BYTES  # it sends one more than fit, so the largest need not
        while trio.current_time() < deadline:
            gathering = _Several()
            left = [subject for subject in subjects if subject not in found]
            request = json.dumps({"multi_last": left, "max_bytes": most}).encode()
            frame = Frame(self._api.subject("DIRECT.GET", stream), request, not_after=deadline)
            await self._ask(frame, gathering, deadline)
            if gathering.able is False:
                return None
            found |= gathering.records
            most = most if gathering.able else 1  # too much may have cost the connection
            if gathering.complete or len(found) == len(subjects):
                return list(found.values())
        raise NotStored(f"{stream} could not be read in time")

    async def last(self, stream: str, subject: str, deadline: float) -> Record | None:
        """Read the newest message of one subject.

        Asked of the stream itself and not directly, so that an absent stream has a name in the
        error. Body and headers come as base64 in JSON; for one message that costs little.
        """
        try:
            reply = await self._api.call(
                self._api.subject("STREAM.MSG.GET", stream),
                {"last_by_subj": check_key(subject)},
                deadline,
            )
        except ApiError as error:
            if error.code == MESSAGE_NOT_FOUND:
                return None
            raise
        found = cast("Mapping[str, str]", reply["message"])
        raw = base64.b64decode(found.get("hdrs", ""))
        return Record(
            sequence=int(found["seq"]),
            subject=found["subject"],
            body=base64.b64decode(found.get("data", "")),
            time_ns=parse_rfc3339(found["time"]),
            headers=decode_headers(raw)[2] if raw else {},
        )

    async def _gather(
        self, stream: str, subject: str, start: dict[str, object], deadline: float
    ) -> list[Record]:
        """Read with a consumer until one try has brought everything, or the deadline has passed.

        A try that was broken off is begun anew: half a history looks like a whole one, and a worker
        would draw conclusions from an outcome that is only missing.
        """
        while True:
            if trio.current_time() >= deadline:
                raise NotStored(f"{stream} could not be read in time")
            gathered = await self._try(stream, subject, start, deadline)
            if gathered is not None:
                return gathered

    async def _try(
        self, stream: str, subject: str, start: dict[str, object], deadline: float
    ) -> list[Record] | None:
        """Make a consumer and read it to its end; None if something was lost on the way.

        Its name is random, so two reads of one subject never meet. The messages need no answer
        (``ack_policy`` none), and the consumer lives in memory: it is gone within seconds.
        """
        name = f"reader-{token_hex(8)}"
        config = {
            **start,
            "name": name,
            "filter_subject": subject,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": IDLE_NS,
        }
        request = {"stream_name": stream, "config": config}
        made = await self._api.call(
            self._api.create_subject(stream, name, subject), request, deadline
        )
        expected = int(str(made.get("num_pending", 0)))
        limits = cast("Mapping[str, object]", made["config"])
        part = min(PART, int(str(limits.get("max_batch", 0))) or PART)
        try:
            return await self._fetch(stream, name, expected, part, deadline) if expected else []
        finally:
            self._link.outbox.put(Frame(self._api.subject("CONSUMER.DELETE", stream, name), b""))

    async def _fetch(
        self, stream: str, name: str, expected: int, part: int, deadline: float
    ) -> list[Record] | None:
        """Pull in parts: a server drops a connection on which too many bytes wait.

        A part must be able to hold the largest message, or it could never bring that one; hence
        :attr:`_part_bytes`. A part that has brought nothing would go on for ever: the consumer has
        expired, or messages were purged meanwhile. None asks for another try. The server may also
        have a limit of its own on what one pull asks for, which ``part`` keeps.
        """
        subject = self._api.subject("CONSUMER.MSG.NEXT", stream, name)
        records: list[Record] = []
        while len(records) < expected:
            before = len(records)
            most = min(expected - before, part)
            request = {"batch": most, "max_bytes": self._part_bytes, "no_wait": True}
            frame = Frame(subject, json.dumps(request).encode(), not_after=deadline)
            await self._ask(frame, _Gathering(records, most), deadline)
            if len(records) == before:
                return None
        return records

    async def _ask(self, frame: Frame, answers: _Answers, deadline: float) -> None:
        """Send a request and take its answers until they say that they are complete.

        Returns at the deadline all the same, without an error: what has come is in ``answers``, and
        the callers look at the time. Several answers need a subscription of their own, because the
        table of requests forgets an entry with its first answer.
        """
        frame.reply = self._link.new_inbox()
        subscription = self._link.subscriptions.add(frame.reply, answers.take, gap=answers.gap)
        try:
            await self._link.path.subscribe(subscription)
            self._link.outbox.put(frame)
            with trio.move_on_at(deadline):
                await answers.done.wait()
        finally:
            self._link.subscriptions.remove(subscription)
            await self._link.path.unsubscribe(subscription)


def direct_record(answer: Incoming) -> Record:
    """Read the answer to a direct read of a stream's store: its facts stand in headers."""
    return Record(
        sequence=int(answer.headers["Nats-Sequence"]),
        subject=answer.headers["Nats-Subject"],
        body=answer.body,
        time_ns=parse_rfc3339(answer.headers["Nats-Time-Stamp"]),
        headers=answer.headers,
    )
