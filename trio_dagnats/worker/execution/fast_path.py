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

Where an ordinary attempt stands, and what brings it on:

| | ``state`` | ``pending`` | task | next |
|---|---|---|---|---|
| stands in line (``admission``) | RECEIVED | its place | - | ``begin`` |
| its run is looked at (old tasks) | RECEIVED | the look | - | ``_looked`` |
| ``step.started`` is under way | STARTING | the post | - | ``_started`` |
| its handler runs | RUNNING | - | the pool's | ``finish`` |
| the same, pipelined | RUNNING | - (the post is in ``starting``) | the pool's | ``_started_late`` |
| its outcome is under way | SETTLING | the post | - | ``_settled`` |
| the same, declared by a call | SETTLING | the post | the handler's, as ``waiter`` | ``_settled`` |
| its message is answered | ENDED | - | - | ``InFlight.leave`` |

So ``pending`` says that a callback will go on with the attempt: the pool and the farewell leave
such a one alone.

What leaves the path, and who goes on:

| what | where it leaves | goes on in |
|---|---|---|
| a redelivery, no task, a run that is over | ``begin``, ``_looked`` | ``triage`` |
| the queue is full, or the event is too large | ``_start``, ``finish`` | ``execute`` |
| ``step.started`` was refused, or is unanswered | ``_started`` | ``effects.resume`` |
| the same, pipelined | ``_started_late`` | ``farewell`` (``NOT_STARTED``) |
| an outcome that has to be conditional from the first send | ``finish`` | ``effects.conclude`` |
| an outcome that was refused, is unanswered, or a duplicate | ``_settled`` | ``effects.resume`` |
| a cancellation before the handler | ``Attempt.cancel`` | ``farewell`` |
| a cancellation of the handler | the pool's task | ``farewell`` |

Both ways share the table of an attempt's life: its ordinary rows are looked up below, once, and the
states that they set are what :func:`.effects.resume` goes on from. The difference is who waits: a
callback of the transport here, a task there.

All callbacks run in trio's thread, one at a time, and none of them may wait.
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
    """Take what a look at the run has found; a run that is over is read again in a task.

    An unknown run, of a server that is silent, too, is no reason not to begin.
    """
    attempt.pending = None
    if is_over(attempt, run):
        attempt.in_flight.spawn(attempt)
    else:
        _start(attempt)


def _start(attempt: Attempt) -> None:
    """Post ``step.started``; pipelined, let the handler begin at once."""
    if not _post_started(attempt):
        attempt.in_flight.spawn(attempt)
    elif attempt.shared.pipelined:
        attempt.starting, attempt.pending = attempt.pending, None
        attempt.state = _RUNNING
        attempt.in_flight.spawn(attempt)


def _post_started(attempt: Attempt) -> bool:
    """Post ``step.started``, until the lease ends; False if it cannot be queued now."""
    event = started_event(attempt)
    attempt.pending = attempt.shared.broker.post(
        event, deadline=attempt.lease_until, done=partial(_started, attempt)
    )
    if attempt.pending is None:
        return False
    attempt.state = _STARTING
    return True


def _started(attempt: Attempt, result: Stored | BrokerError) -> None:
    """Take the answer to ``step.started``, and give the attempt a task.

    A duplicate counts as stored here, unlike an outcome: an event of that id is there, and its
    sequence is what a condition of the outcome begins with. If it is an older one, the condition
    begins too early, which costs a look at the history. After a refusal the state stays STARTING,
    and the task sends the event again.
    """
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
    """Let the handler's task go on; taken out first, for none may be woken twice."""
    if attempt.waiter is not None:
        waiter, attempt.waiter = attempt.waiter, None
        trio.lowlevel.reschedule(waiter)


def finish(attempt: Attempt, outcome: Settlement) -> bool:
    """Post an outcome if nothing about it needs a closer look; False: conclude it as usual.

    A first send may go plain when its lease outlives a dead connection: by the time another worker
    may speak, nothing of ours can arrive any more (design 8.6). Sends after the first one carry the
    condition that the history is as we know it, ``resend_expect``.

    False as well for a redelivery (its history must be read), for a queue that is full, and for a
    continue whose signals are not noted as consumed: the note has to be written before the event.

    The outcome's span is begun here and ended when it is stored; if the attempt leaves the path in
    between it goes along.
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
    """Refuse a cancellation: the callback will come, at the latest by the post's deadline."""
    return trio.lowlevel.Abort.FAILED


def _settled(attempt: Attempt, result: Stored | BrokerError) -> None:
    """Take the answer to an outcome: acknowledge the message, or have a task look into it.

    A duplicate as the answer to a first send is no success: the id may be one under which somebody
    else has stored an event, and nothing of ours (:func:`.settle.is_ours`). The task gets a scope
    that ends with the lease, for the handler's own is another attempt's by now.
    """
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
    """Do what the table says once an outcome is stored: ACK first, then tidy up."""
    attempt.verdict = Verdict.STORED
    attempt.state = _SETTLED
    if attempt.span is not None:
        end_span(attempt.span)
        attempt.span = None
    if attempt.waiter is not None:  # else it leaves everything right after this
        attempt.in_flight.watch.leave(attempt)
    for answer in _ANSWERS:
        answer(attempt)
