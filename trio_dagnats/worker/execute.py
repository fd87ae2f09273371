"""One attempt from its delivery to its end: the handler border, and the farewell."""

import logging
from collections.abc import Awaitable
from random import random

import trio

from trio_dagnats.attempt.life import Input, State
from trio_dagnats.attempt.outcome import (
    MAX_IN_PLACE,
    SHOWN_MEMBERS,
    Failed,
    Outcome,
    RetryInPlace,
    Settlement,
    classify,
    in_place_delay,
)
from trio_dagnats.errors import BrokerError, HandlerError
from trio_dagnats.inspection import class_name, is_interrupt, is_traceable, leaves, text_of
from trio_dagnats.logs import Log
from trio_dagnats.wire.events import FailureType
from trio_dagnats.worker import express
from trio_dagnats.worker.attempt import Attempt
from trio_dagnats.worker.budgets import FAREWELL
from trio_dagnats.worker.context import TaskContext
from trio_dagnats.worker.drive import conclude, drive, resume, surely_in_time
from trio_dagnats.worker.outcomes import bounded
from trio_dagnats.worker.reasons import CancelReason
from trio_dagnats.worker.receive import examine, parse
from trio_dagnats.worker.spans import task_attributes
from trio_dagnats.worker.telemetry import ACTIVE_TASKS, STEP_DURATION_MS, STEP_RETRIES
from trio_dagnats.worker.waits import ensure_note

log = Log("trio_dagnats.worker")

NS = 1_000_000_000

_FAREWELL = {
    CancelReason.DRAIN: Input.DRAINED,
    CancelReason.RUN_CANCELLED: Input.RUN_ENDED,
    CancelReason.RUN_ENDED: Input.RUN_ENDED,
    CancelReason.RUN_DEADLINE: Input.DRAINED,  # before the handler ran: whoever is next will see
    CancelReason.STEP_TIMEOUT: Input.RUN_ENDED,
    CancelReason.LEASE_LOST: Input.LEASE_LOST,
    CancelReason.HANDED_BACK: Input.HANDED_BACK,
    CancelReason.NOT_STARTED: Input.HANDED_BACK,
    CancelReason.BROKEN_OFF: Input.DRAINED,
}

_HANDS_BACK = frozenset({CancelReason.DRAIN, CancelReason.HANDED_BACK, CancelReason.NOT_STARTED})


async def until_handler(attempt: Attempt) -> bool:
    """Do what comes before the handler, from the state in which it stands; True if it shall run."""
    if attempt.state is not State.RECEIVED:
        return await resume(attempt)
    bad = parse(attempt)
    try:
        todo = bad or await examine(attempt)
    except BrokerError:  # the history could not be read: whoever gets the task next will read it
        attempt.cancel(CancelReason.DRAIN)
        return False
    return await drive(attempt, todo)


@trio.lowlevel.disable_ki_protection
async def run_handler(attempt: Attempt) -> Awaitable[None] | None:
    """Call the handler, and bring what came of it on its way; return what there is to wait for.

    This is the only place where everything that a handler raises is caught: whatever it is, it is
    the failure of this attempt. Only here, and in the handler's own tasks, may trio raise a Ctrl-C.

    Cancellation: the handler is cancelled; :func:`farewell` has to follow.
    """
    hub, handler = attempt.hub, attempt.handler
    attempt.started_at = hub.now()
    if attempt.started_at >= attempt.lease_until:  # it stood in line for too long
        attempt.cancel(CancelReason.LEASE_LOST)
        return None
    hub.young.renew(attempt, attempt.started_at)  # what counts is how long the handler runs
    outcome: Outcome
    error: BaseException | None = None
    try:
        call = handler.call(TaskContext(attempt)) if hub.silent else _measured(attempt)
        outcome = handler.outcome(await call)
    except BaseException as raised:
        if runs_elsewhere(attempt.main_task):  # its coroutine is being closed
            raise
        _let_pass(attempt, raised)
        outcome, error = classify(raised), raised
    rest = _after_handler(attempt, outcome, error)
    error = None  # its traceback holds this frame: a cycle around the input
    return rest


def runs_elsewhere(task: trio.lowlevel.Task | None) -> bool:
    """Say whether it is not this task that runs: then whoever calls closes its coroutine.

    A coroutine that is being closed must not wait for anything any more.
    """
    return not trio.lowlevel.in_trio_task() or trio.lowlevel.current_task() is not task


async def _measured(attempt: Attempt) -> object:
    """Call the handler inside of its span, and count it."""
    hub, task_type = attempt.hub, attempt.handler.task_type
    attributes = task_attributes(attempt.task, task_type)
    hub.telemetry.count(ACTIVE_TASKS, 1)
    try:
        with hub.telemetry.span(f"executeTask {task_type}", attempt.trace, attributes) as span:
            attempt.trace = span.trace()
            try:
                return await attempt.handler.call(TaskContext(attempt))
            except Exception as error:
                span.record_error(error)
                raise
    finally:
        took = hub.now() - attempt.started_at
        hub.telemetry.count(ACTIVE_TASKS, -1)
        hub.telemetry.record(STEP_DURATION_MS, round(took * 1000))


def _let_pass(attempt: Attempt, error: BaseException) -> None:
    """Raise a cancellation or a Ctrl-C, perhaps out of a group; log what was raised beside it.

    A cancellation that is not in effect is the handler's own: kept and raised outside of its scope.
    Raised any further it would cancel all other attempts, so it counts as an error.
    """
    in_effect = trio.current_effective_deadline() <= trio.current_time()
    passing, rest = None, []
    for leaf in leaves(error):
        if is_interrupt(leaf) or (in_effect and type(leaf) is trio.Cancelled):
            passing = leaf if passing is None or is_interrupt(leaf) else passing
        else:
            rest.append(leaf)
    if passing is None:
        return
    for other in rest[:SHOWN_MEMBERS]:
        _log_error(attempt, other, "raised while it was cancelled")
    raise passing


@trio.lowlevel.enable_ki_protection
def _after_handler(
    attempt: Attempt, outcome: Outcome, error: BaseException | None
) -> Awaitable[None] | None:
    """Bring an outcome on its way; return what there is to wait for, which is mostly nothing."""
    attempt.returned = True
    if attempt.cancelled:
        if error is not None:
            _log_error(attempt, error, "raised after it was cancelled")
        return None  # the farewell decides: our cancelling never looks like the handler's doing
    if attempt.outcome is not None:  # declared by a call; the message is answered already
        if error is not None:
            _log_error(attempt, error, "raised after its outcome was stored")
        return None
    if error is not None:
        _log_error(attempt, error, "failed")
    if isinstance(outcome, RetryInPlace):
        return _retry_in_place(attempt, outcome)
    if isinstance(outcome, Failed) and outcome.kind is FailureType.RETRIABLE:
        attempt.hub.telemetry.count(STEP_RETRIES, 1)
    outcome = bounded(outcome, attempt.hub.broker.max_payload)
    if attempt.starting is not None:
        return _finish_once_started(attempt, outcome)
    return None if express.finish(attempt, outcome) else conclude(attempt, outcome)


async def _finish_once_started(attempt: Attempt, outcome: Settlement) -> None:
    if await express.confirmed(attempt) and not express.finish(attempt, outcome):
        await conclude(attempt, outcome)


async def _retry_in_place(attempt: Attempt, wanted: RetryInPlace) -> None:
    """Hand the task back with a delay, a bounded number of times, so that no run can wedge."""
    times = attempt.delivery.deliveries - 1
    try:
        await ensure_note(attempt)
        times = attempt.note.retries if attempt.hub.store.notes else times
    except BrokerError as silence:
        log.warning("%s: note not read: %s", attempt.label, silence, extra=attempt.log_fields)
    if times >= MAX_IN_PLACE:
        error = f"{wanted.error} (after {times} retries in place)"
        await conclude(attempt, Failed(kind=FailureType.RETRIABLE, error=error))
        return
    express.drop_start(attempt)
    attempt.note = attempt.note.with_retry()
    attempt.nak_delay = in_place_delay(times + 1, wanted.delay, random())  # noqa: S311 - jitter
    await drive(attempt, Input.RETRY_IN_PLACE)


async def farewell(attempt: Attempt) -> None:
    """Answer the message of an attempt that was ended from outside; decide first, then act once."""
    if attempt.ended or attempt.posted is not None:
        return
    attempt.reason = attempt.reason or CancelReason.LEASE_LOST
    express.drop_start(attempt)
    limit = min(trio.current_time() + FAREWELL, attempt.lease_until)
    with trio.CancelScope(shield=True, deadline=limit):
        await _answer(attempt, attempt.reason)
    _answer_at_last(attempt)
    if attempt.reason is CancelReason.LEASE_LOST:
        attempt.delivery.forget()


async def _answer(attempt: Attempt, reason: CancelReason) -> None:
    if reason is CancelReason.RUN_DEADLINE and attempt.state is State.RUNNING:
        text = "the run's deadline has passed"
        await conclude(attempt, Failed(kind=FailureType.NON_RETRIABLE, error=text))
        return
    if reason in _HANDS_BACK:
        await _prepare_hand_back(attempt)
    running = attempt.state is State.RUNNING
    paused = running and attempt.nak_delay > 0
    await drive(attempt, Input.HANDED_BACK if paused else _FAREWELL[reason])


def _answer_at_last(attempt: Attempt) -> None:
    """Hand back what could not be answered in time because its note was too slow."""
    if attempt.ended or attempt.reason is CancelReason.LEASE_LOST:
        return
    if surely_in_time(attempt):
        attempt.delivery.nak(attempt.nak_delay, not_after=attempt.lease_until)
    else:
        attempt.reason = CancelReason.LEASE_LOST


async def _prepare_hand_back(attempt: Attempt) -> None:
    """Note that the attempt is let go on purpose, and for how long (design 8.2, 8.3)."""
    attempt.nak_delay = 0.0
    until_ns = max((wait.until_ns for wait in attempt.waits), default=0)
    if until_ns:
        attempt.nak_delay = max(0.0, (until_ns - attempt.hub.broker.time_ns()) / NS)
    if attempt.state not in {State.STARTING, State.RUNNING}:
        return
    try:
        await ensure_note(attempt)
        attempt.note = attempt.note.with_let_go()
    except BrokerError:
        log.warning("%s: handed back without a note", attempt.label, extra=attempt.log_fields)


def _log_error(attempt: Attempt, error: BaseException, what: str) -> None:
    """Log a handler's error once; the traceback is shown for what was not raised on purpose."""
    told = issubclass(type(error), HandlerError)
    log.log(
        logging.WARNING if told else logging.ERROR,
        "%s %s: %s: %s",
        attempt.label,
        what,
        class_name(error),
        text_of(error),
        exc_info=error if not told and is_traceable(error) else None,
        extra=attempt.log_fields,
    )
