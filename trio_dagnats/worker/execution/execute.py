"""What an attempt's task does: what comes before the handler, and the handler border."""

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
    bounded,
    classify,
    in_place_delay,
)
from trio_dagnats.attempt.reasons import CancelReason
from trio_dagnats.errors import BrokerError, HandlerError
from trio_dagnats.inspection import class_name, is_interrupt, is_traceable, leaves, text_of
from trio_dagnats.logs import Log
from trio_dagnats.wire.events import FailureType
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.execution import fast_path
from trio_dagnats.worker.execution.effects import conclude, drive, resume
from trio_dagnats.worker.execution.triage import examine, parse
from trio_dagnats.worker.telemetry import STEP_RETRIES, Span, begin_task, count, end_task

log = Log("trio_dagnats.worker")


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

    Cancellation: the handler is cancelled; :func:`.farewell.farewell` has to follow.
    """
    shared, program = attempt.shared, attempt.program
    attempt.started_at = shared.now()
    if attempt.started_at >= attempt.lease_until:  # it stood in line for too long
        attempt.cancel(CancelReason.LEASE_LOST)
        return None
    # What counts is how long the handler runs.
    attempt.in_flight.young.renew(attempt, attempt.started_at)
    outcome: Outcome
    error: BaseException | None = None
    span: Span | None = None
    try:
        if not shared.silent:
            span, attempt.trace = begin_task(
                shared.telemetry, attempt.task, program.task_type, attempt.trace
            )
        outcome = program.outcome(await program.call(attempt))
    except BaseException as raised:
        if runs_elsewhere(attempt.main_task):  # its coroutine is being closed
            raise
        _let_pass(attempt, raised)
        outcome, error = classify(raised), raised
    finally:
        if span is not None:
            end_task(shared.telemetry, span, error, shared.now() - attempt.started_at)
    rest = _after_handler(attempt, outcome, error)
    error = None  # its traceback holds this frame: a cycle around the input
    return rest


def runs_elsewhere(task: trio.lowlevel.Task | None) -> bool:
    """Say whether it is not this task that runs: then whoever calls closes its coroutine.

    A coroutine that is being closed must not wait for anything any more.
    """
    return not trio.lowlevel.in_trio_task() or trio.lowlevel.current_task() is not task


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
        count(attempt.shared.telemetry, STEP_RETRIES, 1)
    outcome = bounded(outcome, attempt.shared.broker.max_payload)
    if attempt.starting is not None:
        return _finish_once_started(attempt, outcome)
    return None if fast_path.finish(attempt, outcome) else conclude(attempt, outcome)


async def _finish_once_started(attempt: Attempt, outcome: Settlement) -> None:
    if await fast_path.confirmed(attempt) and not fast_path.finish(attempt, outcome):
        await conclude(attempt, outcome)


async def _retry_in_place(attempt: Attempt, wanted: RetryInPlace) -> None:
    """Hand the task back with a delay, a bounded number of times, so that no run can wedge."""
    memory, times = attempt.memory, attempt.delivery.deliveries - 1
    try:
        await memory.read()
        times = memory.note.retries if attempt.shared.store.keeps(attempt.task) else times
    except BrokerError as silence:
        log.warning("%s: note not read: %s", attempt.label, silence, extra=attempt.log_fields)
    if times >= MAX_IN_PLACE:
        error = f"{wanted.error} (after {times} retries in place)"
        await conclude(attempt, Failed(kind=FailureType.RETRIABLE, error=error))
        return
    fast_path.drop_start(attempt)
    memory.let_go(retry=True)
    attempt.nak_delay = in_place_delay(times + 1, wanted.delay, random())  # noqa: S311 - jitter
    await drive(attempt, Input.RETRY_IN_PLACE)


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
