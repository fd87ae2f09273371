"""What an attempt's task does: what comes before the handler, and the handler border.

Called by ``task_pool`` for each attempt, in this order::

    until_handler    RECEIVED: parse, examine, then the table (effects.feed)
       │             STARTING, SETTLING: effects.resume
       │             left out if the fast path has come as far as RUNNING
       v
    run_handler      program.call, program.outcome, _after_handler
       │
       v
    what is left     nothing on the fast path, where a callback goes on; else the table

The border is one ``except BaseException``, in :func:`run_handler`. What passes it:

| raised by the handler | becomes |
|---|---|
| an error of any kind, groups included | a failure or a retry in place, by ``classify`` |
| a cancellation that is in effect | raised on, so that trio's scopes work; then the farewell |
| a cancellation that the handler kept and raises later | an error like any other |
| a Ctrl-C that trio has delivered here | raised on; the worker drains |
| anything, while its coroutine is being closed | raised on, for nothing may wait any more |

What is raised beside a cancellation, or after the outcome was declared, changes nothing any more
and is logged.

What is left to wait for is returned and not awaited in there: a Ctrl-C may strike the handler, but
not the storing of its outcome, and the frame that is open to it must be gone by then.
"""

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
from trio_dagnats.worker.execution.effects import conclude, feed, resume
from trio_dagnats.worker.execution.triage import examine, parse
from trio_dagnats.worker.telemetry import STEP_RETRIES, Span, begin_task, count, end_task

log = Log("trio_dagnats.worker")


async def until_handler(attempt: Attempt) -> bool:
    """Do what comes before the handler, from the state in which it stands; True if it shall run.

    False: the attempt has ended, or was cancelled and needs its farewell. A history that cannot be
    read is no reason to run a handler that may have run before: the task is handed back.
    """
    if attempt.state is not State.RECEIVED:
        return await resume(attempt)
    bad = parse(attempt)
    try:
        todo = bad or await examine(attempt)
    except BrokerError:  # the history could not be read: whoever gets the task next will read it
        attempt.cancel(CancelReason.DRAIN)
        return False
    return await feed(attempt, todo)


@trio.lowlevel.disable_ki_protection
async def run_handler(attempt: Attempt) -> Awaitable[None] | None:
    """Call the handler, and bring what came of it on its way; return what there is to wait for.

    This is the only place where everything that a handler raises is caught: whatever it is, it is
    the failure of this attempt. Only here, and in the handler's own tasks, may trio raise a Ctrl-C.

    The lease is looked at once more before the call: an attempt can stand in line for long, and one
    whose task another worker may have must not begin. One that is young is made as young as can be:
    it is watched once its handler has run for ``YOUNG`` seconds.

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

    The garbage collector may, when a trio run has ended under it.
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
    """Bring an outcome on its way; return what there is to wait for, which is mostly nothing.

    In order, the first that fits: it was cancelled (the farewell decides); an outcome was declared
    by a call; a retry in place; the fast path; the table. An output that can never fit the engine's
    snapshot has become a failure before it is sent (``bounded``).
    """
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
    """Keep the order of the events: no outcome before its own ``step.started`` is stored.

    If that was refused the attempt is cancelled (``NOT_STARTED``), and its farewell hands back.
    """
    if await fast_path.confirmed(attempt) and not fast_path.finish(attempt, outcome):
        await conclude(attempt, outcome)


async def _retry_in_place(attempt: Attempt, wanted: RetryInPlace) -> None:
    """Hand the task back with a delay, a bounded number of times, so that no run can wedge.

    The note counts them. Without one (no bucket, or no answer) the count of deliveries stands in:
    it is too high at times, which costs retries and wedges nothing.
    """
    memory, times = attempt.memory, attempt.delivery.deliveries - 1
    try:
        await memory.read()
        times = memory.note.retries if attempt.shared.store.notes else times
    except BrokerError as silence:
        log.warning("%s: note not read: %s", attempt.label, silence, extra=attempt.log_fields)
    if times >= MAX_IN_PLACE:
        error = f"{wanted.error} (after {times} retries in place)"
        await conclude(attempt, Failed(kind=FailureType.RETRIABLE, error=error))
        return
    fast_path.drop_start(attempt)
    memory.let_go(retry=True)
    attempt.nak_delay = in_place_delay(times + 1, wanted.delay, random())  # noqa: S311 - jitter
    await feed(attempt, Input.RETRY_IN_PLACE)


def _log_error(attempt: Attempt, error: BaseException, what: str) -> None:
    """Log a handler's error once; the traceback is shown for what was not raised on purpose.

    Raised on purpose is what handlers raise of our own (``HandlerError``): a warning with its text.
    """
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
