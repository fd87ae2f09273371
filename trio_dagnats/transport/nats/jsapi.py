"""Requests to the server's JetStream API, and what its answers mean.

An answer is a JSON object, with an ``error`` in it or what was asked for. What an error means to
the port:

========================================  ====================================================
error                                     raised
========================================  ====================================================
10071 (another last sequence)             ``Conflict``
10164 (another is on its way there)       ``Conflict``
10099, 10100 (filters overlap)            ``Conflict``
10059, 10014 (no stream, no consumer)     ``Missing``
10039, 10076, or nobody answers (503)     ``Missing``, which says how to get JetStream
``publisher.BUSY_CODES``                  none from a store: tried again
any other                                 ``ApiError``, a ``BrokerError`` with the code
========================================  ====================================================

All requests here may be sent twice, after a reconnect or a silence: creating, updating and deleting
say how things shall be, and doing so twice changes nothing.

Called by ``broker``, ``kv``, ``records`` and ``publisher``; nothing outside this room knows codes.
"""

import json
import re
from collections.abc import Mapping
from functools import partial
from typing import NoReturn, cast, final

import trio
from pydantic_core import from_json

from trio_dagnats.errors import BrokerError, Conflict, Missing, NotStored
from trio_dagnats.transport.nats.frames import Frame, Incoming
from trio_dagnats.transport.nats.link import Link
from trio_dagnats.transport.port import ConsumerSpec, ConsumerState, StreamSpec
from trio_dagnats.wire.subjects import check_filter, check_name
from trio_dagnats.wire.text import parse_rfc3339

NO_RESPONDERS = "503"
_CONFLICTS = {10071, 10164, 10099, 10100}
"""A wrong last sequence; another message on its way into the subject; filters that overlap."""
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
MESSAGE_NOT_FOUND = 10037
MAX_ACK_PENDING_EXCEEDED = 10121
_MISSING = {STREAM_NOT_FOUND, CONSUMER_NOT_FOUND}
_NO_JETSTREAM = {10039, 10076}
"""JetStream is off for the account, or for the server."""
BACK_OFF = (0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds before the next try of what the server could not do now; the last one for all further.
Not a number of tries ends them, but the deadline of the call."""
_STREAM_FIELDS = {"subjects", "retention", "storage", "duplicate_window", "max_age", "allow_atomic"}
"""What is compared before a stream is updated: what a ``StreamSpec`` says. The server reports many
more fields, filled with defaults that depend on its version."""

Json = Mapping[str, object]

_LIMIT = re.compile(r"limit of (\d{1,18})")


@final
class ApiError(BrokerError):
    """The server refused a request; ``code`` is its JetStream error code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} (JetStream error {code})")
        self.code = code


def read_reply(body: bytes) -> dict[str, object]:
    """Read an answer as what all of them are.

    Raises:
        ApiError: it is no JSON object.
    """
    try:
        found = from_json(body)
    except ValueError as error:
        raise ApiError(0, f"an answer that is no JSON: {body[:80]!r}") from error
    if not isinstance(found, dict):
        raise ApiError(0, f"an answer that is no object: {body[:80]!r}")
    return found


def raise_api_error(error: Json) -> NoReturn:
    """Raise what an ``error`` object in an answer means to the caller."""
    code, text = int(str(error.get("err_code", 0))), str(error.get("description", "refused"))
    if code in _CONFLICTS:
        raise Conflict(f"{text} (JetStream error {code})")
    if code in _NO_JETSTREAM:
        raise no_jetstream()
    if code in _MISSING:
        raise Missing(f"{text} (JetStream error {code})")
    raise ApiError(code, text)


def no_jetstream() -> Missing:
    """Build the error for a server, or an account on it, without JetStream.

    The first error that a newcomer meets: a plain ``nats-server`` answers everything else. So it
    says what to run.
    """
    return Missing(
        "this server has no JetStream for this account: start it with `nats-server -js` (or enable "
        "JetStream for the account), or point at a DagNats engine (`dagnats serve`)"
    )


def api_subject(api: str, operation: str, *names: str) -> str:
    """Return where the API is asked for an operation on streams and consumers of these names.

    Args:
        api: how its subjects begin, as ``Link.api``.
        operation: one or more words of the API.
        names: the stream's, and the consumer's.

    Raises:
        UsageError: a name is none: it would ask for another operation, or for many streams.
    """
    return ".".join((api, operation, *map(check_name, names)))


@final
class JsApi:
    """The management side of a server.

    Keeps nothing of the server. A name is checked where its subject is made (``api_subject``): one
    with a dot or a wildcard would ask for another operation, or for all streams.

    Args:
        link: the connection.

    Attributes:
        prefix: how the API's subjects begin.
        subject: :func:`api_subject` of this connection's API.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self.prefix = link.api
        self.subject = partial(api_subject, link.api)

    def create_subject(self, stream: str, consumer: str, filter_subject: str) -> str:
        """Return where the API is asked for a consumer with one filter.

        Raises:
            UsageError: a name is none, or the filter is none.
        """
        asked = self.subject("CONSUMER.CREATE", stream, consumer)
        return f"{asked}.{check_filter(filter_subject)}"

    async def call(self, subject: str, request: Json | None, deadline: float) -> Json:
        """Ask the API; None sends an empty body.

        Args:
            subject: what to ask, as :attr:`subject` returns it.
            request: the body.
            deadline: trio time.

        Raises:
            Missing: this server has no JetStream, or not what was asked for.
            NotStored: no answer in time.
            ApiError: refused otherwise.
        """
        body = b"" if request is None else json.dumps(request).encode()
        answer = await self.ask(Frame(subject, body, not_after=deadline), deadline)
        if answer.status == NO_RESPONDERS:
            raise no_jetstream()
        reply = read_reply(answer.body)
        if isinstance(error := reply.get("error"), dict):
            raise_api_error(error)
        return reply

    async def ask(self, frame: Frame, deadline: float) -> Incoming:
        """Send a request that may be sent again, and return its answer, whatever it is.

        Raises:
            NotStored: no answer in time; what was asked for may or may not have been done.
        """
        again = partial(Frame, frame.subject, frame.body, "", frame.head, deadline)
        answer, _ = await self._link.requests.ask(frame, deadline=deadline, again=again)
        return answer

    async def has_stream(self, stream: str, deadline: float) -> bool:
        """See ``port.Broker.has_stream``.

        The list of names may be a page of many, so a name that is not in it is asked for by itself.
        """
        asked = self.subject("STREAM.INFO", stream)
        names = await self.call(self.subject("STREAM.NAMES"), {"subject": ">"}, deadline)
        if stream in _names(names):
            return True
        try:
            await self.call(asked, None, deadline)
        except Missing:
            return False
        return True

    async def stream_made_ns(self, stream: str, deadline: float) -> int:
        """See ``port.Broker.stream_made_ns``."""
        found = await self.call(self.subject("STREAM.INFO", stream), None, deadline)
        return parse_rfc3339(str(found["created"]))

    async def takes(self, subject: str, deadline: float) -> bool:
        """Say whether some stream takes a subject.

        Asked when a publish found no responder: with a stream that is only without a leader for a
        moment, without one for good.
        """
        asked = self.subject("STREAM.NAMES")
        return bool(_names(await self.call(asked, {"subject": subject}, deadline)))

    async def ensure_stream(self, spec: StreamSpec, deadline: float) -> None:
        """See ``port.Broker.ensure_stream``.

        A stream that is as it should be is left alone. One that is not keeps what the specification
        does not speak of; only its number of replicas becomes one. For the local engine, which
        alone makes streams, on a server that it started or was pointed at.
        """
        config: dict[str, object] = {
            "name": spec.name,
            "subjects": list(spec.subjects),
            "retention": spec.retention,
            "storage": spec.storage,
            "duplicate_window": spec.duplicate_window_ns,
            "max_age": spec.max_age_ns,
            "allow_atomic": spec.allow_atomic,
            "num_replicas": 1,
        }
        try:
            found = await self.call(self.subject("STREAM.INFO", spec.name), None, deadline)
        except Missing as missing:
            if str(STREAM_NOT_FOUND) not in str(missing):
                raise
            await self.call(self.subject("STREAM.CREATE", spec.name), config, deadline)
            return
        live = cast("dict[str, object]", found["config"])
        if any(live.get(name, False) != config[name] for name in _STREAM_FIELDS):
            await self.call(self.subject("STREAM.UPDATE", spec.name), {**live, **config}, deadline)

    async def ensure_bucket(self, bucket: str, ttl_ns: int, deadline: float) -> None:
        """Create a bucket as nats.go does (contract 1.3); one that is there is left alone."""
        stream = f"KV_{bucket}"
        window = 120_000_000_000
        config: dict[str, object] = {
            "name": stream,
            "subjects": [f"$KV.{bucket}.>"],
            "max_msgs_per_subject": 1,
            "max_age": ttl_ns,
            "duplicate_window": min(window, ttl_ns) if ttl_ns else window,
            "discard": "new",
            "deny_delete": True,
            "allow_rollup_hdrs": True,
            "allow_direct": True,
            "storage": "file",
            "num_replicas": 1,
        }
        if not await self.has_stream(stream, deadline):
            await self.call(self.subject("STREAM.CREATE", stream), config, deadline)

    async def consumers(self, stream: str, deadline: float) -> list[ConsumerState]:
        """See ``port.Broker.consumers``: the server lists them in pages."""
        asked = self.subject("CONSUMER.LIST", stream)
        found: list[ConsumerState] = []
        while True:
            page = await self.call(asked, {"offset": len(found)}, deadline)
            consumers = cast("list[Json] | None", page.get("consumers")) or []
            found.extend(map(_state, consumers))
            if not consumers or len(found) >= int(str(page.get("total", 0))):
                return found

    async def ensure_consumer(self, spec: ConsumerSpec, deadline: float) -> ConsumerState:
        """See ``port.Broker.ensure_consumer``.

        One request creates or updates, and the server compares nothing: whoever comes last sets
        ``ack_wait``, and even another filter is taken without an error (contract 3.3). What must
        not be lowered is merged by the caller (``worker.intake.durables``). A ``max_ack_pending``
        above the server's limit is refused with the limit in its text, which is asked for then.
        """
        config: dict[str, object] = {
            "durable_name": spec.durable,
            "name": spec.durable,
            "filter_subject": spec.filter_subject,
            "ack_policy": "explicit",
            "deliver_policy": "all",
            "ack_wait": spec.ack_wait_ns,
            "max_ack_pending": spec.max_ack_pending,
            "max_deliver": spec.max_deliver,
            "max_batch": spec.max_batch,
            "max_expires": spec.max_expires_ns,
        }
        subject = self.create_subject(spec.stream, spec.durable, spec.filter_subject)
        request = {"stream_name": spec.stream, "config": config}
        wanted = spec.max_ack_pending
        while True:
            try:
                return _state(await self.call(subject, request, deadline))
            except ApiError as error:
                limit = _LIMIT.search(str(error))
                if error.code != MAX_ACK_PENDING_EXCEEDED or limit is None:
                    raise
                if int(limit[1]) >= wanted:
                    raise
                config["max_ack_pending"] = wanted = int(limit[1])

    async def delete_consumer(self, stream: str, name: str, deadline: float) -> None:
        """See ``port.Broker.delete_consumer``."""
        try:
            await self.call(self.subject("CONSUMER.DELETE", stream, name), None, deadline)
        except Missing as missing:
            if str(CONSUMER_NOT_FOUND) not in str(missing):
                raise

    async def pause_for(self, tries: int, deadline: float, why: str) -> None:
        """Wait before another try of what the server could not do now, for this reason.

        Raises:
            NotStored: there is no time left for one.
        """
        until = trio.current_time() + BACK_OFF[min(tries, len(BACK_OFF) - 1)]
        if until >= deadline:
            raise NotStored(f"the server could not take it in time: {why}")
        await trio.sleep_until(until)


def _names(reply: Json) -> list[str]:
    return cast("list[str] | None", reply.get("streams")) or []


def _state(info: Json) -> ConsumerState:
    config = cast("Json", info["config"])
    return ConsumerState(
        name=str(info["name"]),
        durable=str(config.get("durable_name", "")),
        filter_subject=str(config.get("filter_subject", "")),
        ack_wait_ns=int(str(config.get("ack_wait", 0))),
        max_ack_pending=int(str(config.get("max_ack_pending", 0))),
        pending=int(str(info.get("num_pending", 0))),
        ack_pending=int(str(info.get("num_ack_pending", 0))),
        waiting=int(str(info.get("num_waiting", 0))),
        made_ns=parse_rfc3339(str(info["created"])),
        max_batch=int(str(config.get("max_batch", 0))),
        max_expires_ns=int(str(config.get("max_expires", 0))),
    )
