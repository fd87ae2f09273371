"""What a handler meant by how it ended; what that is to the table of an attempt's life. Pure.

==============================  ======================================  =========================
the handler                     here                                    published
==============================  ======================================  =========================
returns, ``complete``           ``Completed``                           ``step.completed``
``Continue``, ``continue_``     ``Continued``                           ``step.continue``
raises ``Fatal``                ``Failed``, ``NON_RETRIABLE``           ``step.failed``
raises ``RateLimited``          ``Failed``, ``RETRY_AFTER``             ``step.failed``
raises anything else            ``Failed``, ``RETRIABLE``               ``step.failed``
raises ``Retryable``            ``RetryInPlace``                        nothing: NAK with a delay
a write of its was not stored   ``RetryInPlace``                        nothing: NAK with a delay
``Retryable`` for the 6th time  ``Failed``, ``RETRIABLE``               ``step.failed``
an output that cannot fit       ``Failed``, ``NON_RETRIABLE``           ``step.failed``
==============================  ======================================  =========================

A cancellation is no outcome: when the worker has cancelled an attempt, what its handler raises or
returns then is logged and not looked at (``attempt.reasons`` says what follows).

Errors come from users and libraries, so nothing is assumed of them: one whose ``__str__`` raises,
whose class lies about itself, a group within a group. Whatever happens, something is said.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import final

from trio_dagnats.attempt.life import Input
from trio_dagnats.errors import (
    Fatal,
    HandlerError,
    NotStored,
    RateLimited,
    Retryable,
    UsageError,
    unfold,
)
from trio_dagnats.inspection import class_name, is_interrupt, leaves, text_of
from trio_dagnats.wire import events
from trio_dagnats.wire.events import Event, FailureType
from trio_dagnats.wire.task import Task
from trio_dagnats.wire.trace import TraceContext

MAX_IN_PLACE = 5
"""Retries in place before the engine's policy decides, so that no run can wedge."""
FIRST_IN_PLACE_DELAY = 1.0
MAX_IN_PLACE_DELAY = 60.0
"""Seconds before the first retry in place, doubled for each further one, and never more than this;
what a handler asks for itself is taken as it is."""
SHOWN_MEMBERS = 5
"""Members of a group that an error text names: of a thousand tasks a thousand may fail."""
SNAPSHOT_ROOM = 8192
"""Bytes of a run's snapshot that are not outputs: ids, states and times of a small run."""


@final
@dataclass(slots=True)
class Completed:
    """The step is done; ``output`` is JSON, empty for none.

    Not frozen, which costs more than all the rest of it: one is made for every task.
    """

    output: bytes


@final
@dataclass(frozen=True, slots=True)
class Continued:
    """This iteration of a loop is done; ``output`` is JSON, empty for none."""

    output: bytes


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The attempt failed; ``retry_after_ms`` counts for ``RETRY_AFTER`` only.

    ``error`` is for people, and not yet cleaned: ``wire.events.failed`` does that as it writes.
    """

    kind: FailureType
    error: str
    retry_after_ms: int = 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RetryInPlace:
    """Redeliver the same attempt; ``delay`` in seconds, None for a growing one.

    The engine hears nothing of it: its retry budget is not touched, and the step's timeout goes on.
    """

    error: str
    delay: float | None


Settlement = Completed | Continued | Failed
"""What settles an attempt: an event is published for it."""

Outcome = Settlement | RetryInPlace
"""How an attempt can end by its handler's doing."""

INPUT_OF: Mapping[type[Settlement], Input] = {
    Completed: Input.COMPLETED,
    Continued: Input.CONTINUED,
    Failed: Input.FAILED,
}
"""What an outcome is to the table of an attempt's life."""


def classify(error: BaseException) -> Failed | RetryInPlace:
    """Say what an exception means; looks through groups and causes.

    The strongest wish in a group wins, because its members are siblings and none of them knows of
    the others: what must not be tried again is not tried because something else could be.

    Any ``Fatal`` wins, then the longest ``RateLimited``, then ``Retryable``; anything else is for
    the engine's retry policy. A handler's own timeout (``trio.TooSlowError``) is such an error. A
    checkpoint that the server did not take in time is not the handler's fault: it is retried in
    place, as if it were ``Retryable``. One that cannot even be looked at is a plain error.
    """
    try:
        return _classify(error)
    except BaseException as bad:
        if is_interrupt(bad):
            raise
        return Failed(kind=FailureType.RETRIABLE, error=describe(error))


def _classify(error: BaseException) -> Failed | RetryInPlace:
    found = list(unfold(error))
    for fatal in found:
        if isinstance(fatal, Fatal):
            return failure(fatal)
    limits = [e for e in found if isinstance(e, RateLimited)]
    if limits:
        return failure(max(limits, key=lambda e: e.after))
    for retryable in found:
        if isinstance(retryable, Retryable):
            return RetryInPlace(error=describe(retryable), delay=retryable.delay)
    if any(isinstance(e, NotStored) for e in found):
        return RetryInPlace(error=describe(error), delay=None)
    return Failed(kind=FailureType.RETRIABLE, error=describe(error))


def failure(error: Fatal | RateLimited) -> Failed:
    """Return the failure that one of these two stands for.

    Milliseconds are what the wire takes; a wish beyond any bound is cut here so that it can be one,
    and to the engine's own bound by ``wire.events.failed``.
    """
    if isinstance(error, Fatal):
        return Failed(kind=FailureType.NON_RETRIABLE, error=describe(error))
    after_ms = round(min(error.after, 1e6) * 1000)
    return Failed(kind=FailureType.RETRY_AFTER, error=describe(error), retry_after_ms=after_ms)


def describe(error: BaseException) -> str:
    """Return the text of an exception: on-purpose errors say only what their raiser wrote.

    Of a group, those of its first members. Never fails, whatever the exception is.
    """
    if issubclass(type(error), BaseExceptionGroup):
        return _describe_group(error)
    text = text_of(error)
    if issubclass(type(error), HandlerError | UsageError):
        return text
    return f"{class_name(error)}: {text}" if text else class_name(error)


def in_place_delay(times: int, wanted: float | None, jitter: float) -> float:
    """Return the seconds before the ``times``-th retry in place (from 1).

    Args:
        times: which retry it is.
        wanted: the handler's own delay, taken as it is.
        jitter: a random number from 0 to 1; spreads what failed together.
    """
    if wanted is not None:
        return wanted
    grown = FIRST_IN_PLACE_DELAY * 2.0 ** (times - 1)
    return min(grown, MAX_IN_PLACE_DELAY) * (0.5 + jitter / 2)


def bounded(outcome: Settlement, max_payload: int) -> Settlement:
    """Turn an output that can never fit the engine's snapshot into a failure that says so.

    Asked for each outcome before it is stored, for afterwards nobody could tell. Base64 makes four
    bytes of three; that several outputs of a run may not fit together is not seen from here.

    The snapshot holds it as base64 and must fit ``max_payload``; else the step would stay running
    for ever.
    """
    if not isinstance(outcome, Completed):
        return outcome
    most = (max_payload - SNAPSHOT_ROOM) * 3 // 4
    if len(outcome.output) <= most:
        return outcome
    return Failed(
        kind=FailureType.NON_RETRIABLE,
        error=f"output of {len(outcome.output)} bytes is more than the {most} that fit a run on "
        "this server; store it elsewhere and complete with a reference to it",
    )


def event_for(  # noqa: PLR0913 - an outcome, and what its event is made of
    outcome: Settlement,
    task: Task,
    *,
    dispatch: int,
    worker_id: str,
    time_ns: int,
    trace: TraceContext,
    iteration: int,
) -> Event:
    """Return the event of an outcome.

    Args:
        outcome: what is told.
        task: whose it is.
        dispatch: the task message's stream sequence; for a continue, whose id it is part of.
        worker_id: this worker; a continue does not say it.
        time_ns: nanoseconds since the epoch.
        trace: the trace that it belongs to.
        iteration: our own count, which a continue's id holds.
    """
    if isinstance(outcome, Completed):
        return events.completed(
            task, outcome.output, worker_id=worker_id, time_ns=time_ns, trace=trace
        )
    if isinstance(outcome, Continued):
        return events.continued(
            task,
            outcome.output,
            dispatch=dispatch,
            iteration=iteration,
            time_ns=time_ns,
            trace=trace,
        )
    return events.failed(
        task,
        outcome.kind,
        outcome.error,
        retry_after_ms=outcome.retry_after_ms,
        worker_id=worker_id,
        time_ns=time_ns,
        trace=trace,
    )


def _describe_group(group: BaseException) -> str:
    members = leaves(group)
    told = "; ".join(describe(member) for member in islice(members, SHOWN_MEMBERS))
    more = sum(1 for _ in members)
    return f"{told}; and {more} more errors" if more else told
