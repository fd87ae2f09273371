"""Events: what a worker publishes on a run's history, and how a history is read (contract 4, 6.1).

Bodies are built by hand: two of them are written for every task, and most of their strings are
ids that need no escaping.

What is written, and under which id (``<run>.<step>.`` stands before each but the run's own):

==================  ==================================  ==============  ===========  ==============
event               id                                  attempt_number  worker_id    payload
==================  ==================================  ==============  ===========  ==============
``step.started``    ``step.started.<n>[.i<i>][.d<d>]``  always, from 1  yes          none
``step.completed``  ``step.completed[.<n>][.i<i>]``     if the task     yes          the output
                                                        has one
``step.failed``     ``step.failed[.<n>][.i<i>]``        the same        yes          why, what kind
``step.continue``   ``continue.<i>.<dispatch>``         no              no           the output
an answer           the event's type                    no              no           the answer
a cancellation      ``<run>.workflow.cancelled``        no              no           its cause
==================  ==================================  ==============  ===========  ==============

*n* is the attempt, *i* the iteration from 1 on, *d* the delivery from 2 on. An id says all that may
differ between two events that must both be stored: a stream drops the second one of an id within
its window (5 s for a history). And nothing that differs between two sends of *one* event, such as
the time: or the second send would count again. So each event has one id, however often it is sent.

The reader (``parse_event``) takes what any publisher writes: an engine, a Go worker, an older
version of this one. Unknown keys are left out, unknown types kept as they are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple, final

from pydantic_core import from_json

from trio_dagnats.errors import UsageError, WireError
from trio_dagnats.wire.names import history_subject
from trio_dagnats.wire.task import Task, event_ids
from trio_dagnats.wire.text import NS, clean_error, compact, id_text, parse_rfc3339, quote, rfc3339
from trio_dagnats.wire.trace import NO_HEADERS, NO_TRACE, TraceContext

MIN_RETRY_AFTER_MS = 100
MAX_RETRY_AFTER_MS = 3_600_000
"""Milliseconds that the engine accepts (contract 4.2); what lies outside is moved to the bound."""


class FailureType(StrEnum):
    """How the engine shall take a failure (contract 4.2).

    ``retriable``: its retry policy decides. ``non_retriable``: the step has failed, whatever policy
    it has. ``retry_after``: as the first, but after the delay that the worker says.
    """

    RETRIABLE = "retriable"
    NON_RETRIABLE = "non_retriable"
    RETRY_AFTER = "retry_after"


class EventType(StrEnum):
    """The types of history events that the engine handles or publishes (contract 6.1)."""

    WORKFLOW_STARTED = "workflow.started"
    WORKFLOW_COMPLETED = "workflow.completed"
    WORKFLOW_FAILED = "workflow.failed"
    WORKFLOW_CANCELLED = "workflow.cancelled"
    WORKFLOW_SPAWN = "workflow.spawn"
    CHILD_COMPLETED = "workflow.child.completed"
    CHILD_FAILED = "workflow.child.failed"
    STEP_QUEUED = "step.queued"
    STEP_STARTED = "step.started"
    STEP_COMPLETED = "step.completed"
    STEP_FAILED = "step.failed"
    STEP_CONTINUE = "step.continue"
    SLEEP_STARTED = "step.sleep.started"
    SLEEP_COMPLETED = "step.sleep.completed"
    WAIT_STARTED = "step.wait.started"
    WAIT_MATCHED = "step.wait.matched"
    WAIT_TIMEOUT = "step.wait.timeout"
    APPROVAL_REQUESTED = "approval.requested"
    APPROVAL_GRANTED = "approval.granted"
    APPROVAL_REJECTED = "approval.rejected"
    APPROVAL_EXPIRED = "approval.expired"
    PLANNER_MATERIALIZED = "planner.materialized"


# Plain strings: a member's own is one call away, twice for every task.
_STARTED = EventType.STEP_STARTED.value
_COMPLETED = EventType.STEP_COMPLETED.value
_FAILED = EventType.STEP_FAILED.value
_CONTINUE = EventType.STEP_CONTINUE.value


@final
class Event(NamedTuple):
    """An event ready to be stored. A named tuple, because two are made for every task.

    Attributes:
        subject: the run's history; one for all its steps, so that their order is one.
        msg_id: the id under which the server knows a second send.
        headers: trace fields, or none; the id is added by whoever sends.
        body: its JSON.
    """

    subject: str
    msg_id: str
    headers: Mapping[str, str]
    body: bytes


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEvent:
    """An event as it stands in a history.

    Attributes:
        type: see :class:`EventType`; an unknown one is kept as it is.
        run_id: the run.
        step_id: the step, empty for events of the run.
        timestamp_ns: when its publisher wrote it; None if that cannot be read.
        payload: the payload's JSON, empty if it has none.
        worker_id: the worker that published it, empty for the engine's own.
        attempt_number: the attempt it speaks about, None if it does not say.
    """

    type: str
    run_id: str
    step_id: str = ""
    timestamp_ns: int | None = None
    payload: bytes = b""
    worker_id: str = ""
    attempt_number: int | None = None


def started(
    task: Task, *, worker_id: str, time_ns: int, trace: TraceContext, deliveries: int = 1
) -> Event:
    """Return ``step.started``: the same attempt number on every delivery (design 8.1).

    The same number spends no retry and does not arm the step's timeout again. The id says which
    delivery it was, so that a redelivery's is not dropped as a duplicate: starts are counted in the
    history, to find tasks that kill their workers (``attempt.past``).
    """
    number = task.attempt or 1
    msg_id = _msg_id(task, _STARTED, number)
    if deliveries > 1:
        msg_id = f"{msg_id}.d{deliveries}"
    tail = f',"worker_id":{_quote_often(worker_id)},"attempt_number":{number}'
    return _event(_STARTED, task, msg_id, time_ns, trace, tail)


def completed(
    task: Task, output: bytes, *, worker_id: str, time_ns: int, trace: TraceContext
) -> Event:
    """Return ``step.completed`` with the output's JSON inline; empty output leaves the key out.

    The output is not looked at: whoever made it has checked it (``wire.data``), and a megabyte
    would be read twice.
    """
    return _outcome(_COMPLETED, task, output, worker_id, time_ns, trace)


def failed(  # noqa: PLR0913 - what a failure says, and where it comes from
    task: Task,
    kind: FailureType,
    error: str,
    *,
    retry_after_ms: int = 0,
    worker_id: str,
    time_ns: int,
    trace: TraceContext,
) -> Event:
    """Return ``step.failed``; the text is cleaned (H26) and never empty, the delay clamped.

    Args:
        task: whose failure it is.
        kind: what the engine shall do.
        error: what went wrong, for people; any text.
        retry_after_ms: milliseconds, for ``RETRY_AFTER`` only.
        worker_id: this worker.
        time_ns: nanoseconds since the epoch.
        trace: the trace that it belongs to.
    """
    payload: dict[str, object] = {"error": clean_error(error), "failure_type": kind.value}
    if kind is FailureType.RETRY_AFTER:
        payload["retry_after_ms"] = min(max(retry_after_ms, MIN_RETRY_AFTER_MS), MAX_RETRY_AFTER_MS)
    return _outcome(_FAILED, task, compact(payload), worker_id, time_ns, trace)


def continued(
    task: Task,
    output: bytes,
    *,
    dispatch: int,
    iteration: int,
    time_ns: int,
    trace: TraceContext,
) -> Event:
    """Return ``step.continue``: no worker and no attempt number, as the Go worker writes it.

    The id holds the dispatch, so that no iteration's is dropped as a duplicate of another's, and a
    second one of the same dispatch is (design 8.1; contract H14).
    """
    msg_id = f"{task.run_id}.{task.step_id}.continue.{iteration}.{dispatch}"
    return _event(_CONTINUE, task, msg_id, time_ns, trace, "", output)


def cancelled(run_id: str, time_ns: int, payload: bytes = b"") -> Event:
    """Return the event that cancels a run (contract 6.7), with the event that asked for it.

    Without the time in its id: who cancels a run twice cancels it once.
    """
    head = f'{{"type":"{EventType.WORKFLOW_CANCELLED.value}","run_id":{quote(run_id)}'
    body = f'{head},"timestamp":"{rfc3339(time_ns)}"'.encode()
    if payload:
        body = b'%b,"payload":%b' % (body, payload)
    return Event(history_subject(run_id), f"{run_id}.workflow.cancelled", {}, b"%b}" % body)


def answered(kind: EventType, run_id: str, step_id: str, payload: bytes, time_ns: int) -> Event:
    """Return the event that answers an approval, or that a step has waited for (contract 6.1).

    Two answers of different kinds have different ids; which one counts is the engine's to say.
    """
    head = f'{{"type":"{kind.value}","run_id":{quote(run_id)},"step_id":{quote(step_id)}'
    body = f'{head},"timestamp":"{rfc3339(time_ns)}"'.encode()
    if payload:
        body = b'%b,"payload":%b' % (body, payload)
    msg_id = f"{run_id}.{step_id}.{kind.value}"
    return Event(history_subject(run_id), msg_id, {}, b"%b}" % body)


def parse_event(body: bytes) -> HistoryEvent:
    """Read a history event.

    Raises:
        WireError: not a JSON object, without a type and a run, or with a payload that cannot be
            written again: NaN, or a number too large.
    """
    try:
        found = from_json(body)
    except ValueError as error:
        raise WireError(f"an event that is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise WireError(f"an event that is no object: {body[:40]!r}")
    type_, run_id = found.get("type"), found.get("run_id")
    if not (isinstance(type_, str) and isinstance(run_id, str) and type_ and run_id):
        raise WireError(f"an event without type and run_id: {body[:80]!r}")
    number = found.get("attempt_number")
    try:
        payload = compact(found["payload"]) if "payload" in found else b""
    except UsageError as error:
        raise WireError(f"an event with an odd payload: {error}") from error
    return HistoryEvent(
        type=type_,
        run_id=run_id,
        step_id=_text(found, "step_id"),
        timestamp_ns=_time(found.get("timestamp")),
        payload=payload,
        worker_id=_text(found, "worker_id"),
        attempt_number=number if isinstance(number, int) else None,
    )


def timeout_payload(timeout_ns: int) -> dict[str, object]:
    """Return what the engine says of an attempt that took too long (contract 6.5).

    Written by the local engine; a worker knows such a failure by its having no ``worker_id``.
    """
    error = f"step timeout exceeded ({timeout_ns / NS:g}s)"
    return {"error": error, "failure_type": FailureType.RETRIABLE.value}


def _msg_id(task: Task, kind: str, number: int) -> str:
    """Return an event's id, which says the attempt's number if there is one.

    It tells iterations apart: Go's ids drop a failure within 5 s of an earlier one (design 8.1).
    """
    msg_id = f"{task.run_id}.{task.step_id}.{kind}"
    if number:
        msg_id = f"{msg_id}.{number}"
    return f"{msg_id}.i{task.iteration}" if task.iteration else msg_id


def _outcome(
    kind: str,
    task: Task,
    payload: bytes,
    worker_id: str,
    time_ns: int,
    trace: TraceContext,
) -> Event:
    """Make one of the two events that end an attempt."""
    tail = f',"worker_id":{_quote_often(worker_id)}'
    if task.attempt:  # left out on a first attempt, as the Go worker does (contract 4.2)
        tail = f'{tail},"attempt_number":{task.attempt}'
    return _event(kind, task, _msg_id(task, kind, task.attempt), time_ns, trace, tail, payload)


def _event(  # noqa: PLR0913, PLR0917 - the parts of one body, in their order
    kind: str,
    task: Task,
    msg_id: str,
    time_ns: int,
    trace: TraceContext,
    tail: str,
    payload: bytes = b"",
) -> Event:
    """Write an event: head, payload, tail, in the order in which the Go worker writes them.

    ``tail`` begins with a comma and is JSON already; so is ``payload``, of which no copy is made
    but the one that joins it.
    """
    ids = task.ids or event_ids(task.run_id, task.step_id)
    if not msg_id.isprintable():  # a step's id may be any text
        msg_id = id_text(msg_id)
    headers = NO_HEADERS
    if trace is not NO_TRACE:
        tail = f"{_trace_fields(trace)}{tail}"
        headers = trace.headers()
    head = f'{{"type":"{kind}",{ids},"timestamp":"{rfc3339(time_ns)}"'
    if payload:
        body = b'%b,"payload":%b%b}' % (head.encode(), payload, tail.encode())
    else:
        body = f"{head}{tail}}}".encode()
    # As its own constructor does it, which is one call more.
    return tuple.__new__(Event, (history_subject(task.run_id), msg_id, headers, body))


def _trace_fields(trace: TraceContext) -> str:
    if not trace.traceparent:
        return ""
    fields = f',"trace_parent":{quote(trace.traceparent)}'
    return f'{fields},"trace_state":{quote(trace.tracestate)}' if trace.tracestate else fields


_quote_often = lru_cache(maxsize=8)(quote)
"""For the worker's own id, which stands in every event: a process has one worker, or a few."""


def _text(found: dict[str, object], key: str) -> str:
    value = found.get(key)
    return value if isinstance(value, str) else ""


def _time(value: object) -> int | None:
    if not isinstance(value, str):
        return None
    try:
        return parse_rfc3339(value)
    except WireError:
        return None
