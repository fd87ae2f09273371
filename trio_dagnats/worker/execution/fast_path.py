"""The fast path: an attempt has a trio task only while its handler runs.

::

    delivery ──> step.started posted ──ack──> task: handler ──> outcome posted ──ack──> ACK
                 (no task)                                      (no task)

With ``pipeline_started`` the handler begins as its event is sent; its outcome waits for both.

Nearly every attempt goes this way, and a task that is parked on an acknowledgement would cost more
than the message (its coroutines have to be woken, and the garbage collector looks at them).
Whatever is not ordinary leaves the path: a redelivery, a refusal, silence, a cancellation. The
attempt then gets a task, and ``execute`` goes on from the state in which it stands, as if there
were no fast path.
"""

from functools import partial

import trio

from trio_dagnats.attempt.lease import surely_in_time
from trio_dagnats.attempt.life import Input, State, step
from trio_dagnats.attempt.outcome import INPUT_OF, Continued, Settlement
from trio_dagnats.attempt.reasons import CancelReason
from trio_dagnats.errors import BrokerError
from trio_dagnats.logs import Log
from trio_dagnats.transport.port import Stored
from trio_dagnats.wire.text import NS
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.engine.facts import RunFacts
from trio_dagnats.worker.engine.settle import Verdict, is_ours
from trio_dagnats.worker.execution.messages import ANSWERS, outcome_event, started_event
from trio_dagnats.worker.execution.triage import asks_for_status, is_over
from trio_dagnats.worker.telemetry import begin_outcome, end_span

log = Log("trio_dagnats.worker")

# The ordinary way through the table, looked up once.
_STARTING, _ = step(State.RECEIVED, Input.READY)
_RUNNING, _ = step(State.STARTING, Input.STARTED_STORED)
_SETTLING = {kind: step(State.RUNNING, what)[0] for kind, what in INPUT_OF.items()}
_SETTLED, _effects = step(State.SETTLING, Input.OUTCOME_STORED)
_ANSWERS = [ANSWERS[effect] for effect in _effects]

STARTED_RETRY = 1.0
"""Seconds of the NAK when ``step.started`` could not be stored (contract 5, step 7)."""


def begin(attempt: Attempt) -> None:
    """Begin an attempt: post ``step.started``, or give it a task that takes a closer look.

    Its message has been parsed.
    """
    if attempt.delivery.deliveries > 1 or attempt.complaint:
        attempt.in_flight.spawn(attempt)
    elif asks_for_status(attempt):
        facts, tell = attempt.shared.facts, partial(_looked, attempt)
        attempt.pending = facts.look(attempt.run_id, tell, attempt.lease_until)
    else:
        _start(attempt)


def _looked(attempt: Attempt, run: RunFacts) -> None:
    attempt.pending = None
    if is_over(attempt, run):
        attempt.in_flight.spawn(attempt)
    else:
        _start(attempt)


def _start(attempt: Attempt) -> None:
    if not _post_started(attempt):
        attempt.in_flight.spawn(attempt)
    elif attempt.shared.pipelined:
        attempt.starting, attempt.pending = attempt.pending, None
        attempt.state = _RUNNING
        attempt.in_flight.spawn(attempt)


def _post_started(attempt: Attempt) -> bool:
    event = started_event(attempt)
    attempt.pending = attempt.shared.broker.post(
        event, deadline=attempt.lease_until, done=partial(_started, attempt)
    )
    if attempt.pending is None:
        return False
    attempt.state = _STARTING
    return True


def _started(attempt: Attempt, result: Stored | BrokerError) -> None:
    if attempt.starting is not None:
        _started_late(attempt, result)
        return
    attempt.pending = None
    if isinstance(result, Stored):
        attempt.known_sequence = result.sequence
        attempt.state = _RUNNING
    attempt.in_flight.spawn(attempt)


def _started_late(attempt: Attempt, result: Stored | BrokerError) -> None:
    """Take the answer to an event that the handler did not wait for."""
    attempt.starting = None
    if isinstance(result, Stored):
        attempt.known_sequence = result.sequence
        _wake(attempt)
        return
    log.warning("%s: handed back: %s", attempt.label, result, extra=attempt.log_fields)
    again_ns = attempt.shared.broker.time_ns() + round(STARTED_RETRY * NS)
    attempt.hand_back(CancelReason.NOT_STARTED, again_ns)
    _wake(attempt)


async def confirmed(attempt: Attempt) -> bool:
    """Wait until ``step.started`` is stored, if the handler began before that; False if it is not.

    Not to be cancelled: it ends with the post, as :func:`settled` does.
    """
    if attempt.starting is not None:
        attempt.settling = attempt.starting
        attempt.hasten()
        attempt.waiter = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(_not_now)
        attempt.settling = None
    return attempt.reason is not CancelReason.NOT_STARTED


def drop_start(attempt: Attempt) -> None:
    """Send ``step.started`` no more: a second send would come after the next delivery's events."""
    if attempt.starting is not None:
        attempt.starting.abandon()
        attempt.starting = None


def _wake(attempt: Attempt) -> None:
    if attempt.waiter is not None:
        waiter, attempt.waiter = attempt.waiter, None
        trio.lowlevel.reschedule(waiter)


def finish(attempt: Attempt, outcome: Settlement) -> bool:
    """Post an outcome if nothing about it needs a closer look; False: conclude it as usual.

    A first send may go plain when its lease outlives a dead connection.
    """
    shared, memory = attempt.shared, attempt.own_memory
    if (
        attempt.delivery.deliveries > 1
        or not surely_in_time(attempt.lease_until, shared.now(), shared.broker.abort_after)
        or (memory is not None and memory.uncommitted and isinstance(outcome, Continued))
    ):
        return False
    if not shared.silent:
        task, trace = attempt.task, attempt.trace
        attempt.span = begin_outcome(shared.telemetry, outcome, task, attempt.iteration, trace)
    event = outcome_event(attempt, outcome)
    posted = shared.broker.post(
        event,
        resend_expect=attempt.known_sequence,
        deadline=attempt.lease_until,
        done=partial(_settled, attempt),
    )
    if posted is None:
        return False
    attempt.outcome = outcome
    attempt.pending = attempt.settling = posted
    if attempt.reason is not None:
        attempt.hasten()
    attempt.state = _SETTLING[type(outcome)]
    return True


async def settled(attempt: Attempt) -> bool:
    """Wait inside the handler for a posted outcome; False if it needs a closer look.

    Not to be cancelled: it ends with the post, whose deadline is the lease's, or a drain's patience
    (``Attempt.hasten``).
    """
    attempt.waiter = trio.lowlevel.current_task()
    await trio.lowlevel.wait_task_rescheduled(_not_now)
    return attempt.ended


def _not_now(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


def _settled(attempt: Attempt, result: Stored | BrokerError) -> None:
    attempt.pending = attempt.settling = None
    stored = isinstance(result, Stored) and is_ours(result)
    if stored:
        _acknowledge(attempt)
    if attempt.waiter is not None:
        _wake(attempt)
    elif stored:
        attempt.in_flight.leave(attempt)
    else:
        attempt.own_scope = trio.CancelScope(deadline=attempt.lease_until)
        attempt.in_flight.spawn(attempt)


def _acknowledge(attempt: Attempt) -> None:
    attempt.verdict = Verdict.STORED
    attempt.state = _SETTLED
    if attempt.span is not None:
        end_span(attempt.span)
        attempt.span = None
    if attempt.waiter is not None:  # else it leaves everything right after this
        attempt.in_flight.watch.leave(attempt)
    for answer in _ANSWERS:
        answer(attempt)
