"""Carrying out what the table of an attempt's life says (``attempt/life.py``).

The table decides, this module acts: each effect is one function, and what became of it is the
table's next input. The handler itself is run by ``execute``::

    what happened ──> step(state, input) ──> state, effects ──> each effect, in order
                        ^                                         │
                        └────────── what became of the last ──────┘

| effect | function | what becomes of it |
|---|---|---|
| ``PUBLISH_STARTED`` | ``_publish_started`` | stored, or not: then NAK with ``STARTED_RETRY`` |
| ``PUBLISH_OUTCOME`` | ``_publish_outcome`` | stored, settled elsewhere, or not: then a NAK |
| ``KEEP_MESSAGE`` | ``dead_letter.keep`` | kept, or not |
| ``WRITE_NOTE`` | ``_write_note`` | nothing: without a note a hand-back is a plain redelivery |
| ``ACK``, ``NAK``, ``TERM``, ``TIDY_UP`` | ``messages`` | nothing: they only queue a frame |
| ``RUN_HANDLER`` | left to the caller | the handler's outcome |

Who feeds it: ``execute`` (before and after the handler), :func:`declare` (from inside it),
``farewell`` (after a cancellation). ``fast_path`` takes the ordinary rows without it.

How an outcome is stored, by who waits for it:

| | shield | bound | where |
|---|---|---|---|
| after the handler, ordinary | none: no task waits | the post's deadline | ``fast_path`` |
| after the handler, else | the attempt's own scope | the lease | ``_store_alone`` |
| inside the handler | a scope around it | the lease | ``_store_shielded`` |

Why is storing shielded at all? An event that was sent may be stored although nobody has waited for
the answer; the worker would hand back a task that is done. So whoever cancels meanwhile
(``Attempt.cancel``) does not break the wait off, but leaves it ``FAREWELL`` seconds at most.
"""

from collections.abc import Awaitable, Callable, Mapping

import trio

from trio_dagnats.attempt import lease
from trio_dagnats.attempt.life import Effect, Input, State, step
from trio_dagnats.attempt.outcome import INPUT_OF, Continued, Failed, Settlement, bounded
from trio_dagnats.attempt.reasons import CancelReason
from trio_dagnats.errors import BrokerError, NotStored, OutcomeError, TooLarge
from trio_dagnats.logs import Log
from trio_dagnats.transport.events import store_event
from trio_dagnats.wire.events import FailureType
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.attempts.upkeep import renew_lease
from trio_dagnats.worker.engine.settle import Claim, Verdict
from trio_dagnats.worker.execution import fast_path
from trio_dagnats.worker.execution.dead_letter import keep
from trio_dagnats.worker.execution.messages import ANSWERS, outcome_event, started_event
from trio_dagnats.worker.telemetry import begin_outcome, end_span

log = Log("trio_dagnats.worker")

OUTCOME_RETRY = 5.0
"""Seconds of the NAK when an outcome could not be stored (contract 5, step 11)."""
_HAND_BACKS = frozenset({Effect.NAK, Effect.NAK_DELAYED})
_AFTER = {
    Verdict.STORED: Input.OUTCOME_STORED,
    Verdict.ELSEWHERE: Input.SETTLED_ELSEWHERE,
    Verdict.NOT_STORED: Input.OUTCOME_NOT_STORED,
}


async def feed(attempt: Attempt, what: Input) -> bool:
    """Feed the table and carry out its effects until it waits; True if the handler shall run now.

    The state is set before the effects, so that a farewell in the middle of them knows how far the
    attempt has come; but ENDED only after them, or it would take the message for answered.

    Cancellation: an outcome that is being stored is finished first, bounded by the lease.
    """
    todo: Input | None = what
    while todo is not None:
        state, effects = step(attempt.state, todo)
        if state is not State.ENDED:  # else only once it is answered: the farewell sees to that
            attempt.state = state
        todo = None
        for effect in effects:
            if effect is Effect.RUN_HANDLER:
                return True
            todo = await _carry_out(attempt, effect) or todo
        attempt.state = state
    return False


def surely_in_time(attempt: Attempt) -> bool:
    """Say whether a NAK that is sent now cannot be late.

    A late one gives a task that another worker has by then to a third (design 8.7). With a lease
    that is shorter than a dead connection can last, a renewal has to prove first that the server is
    there.
    """
    now, abort_after = trio.current_time(), attempt.shared.broker.abort_after
    return lease.surely_in_time(attempt.lease_until, now, abort_after)


async def _carry_out(attempt: Attempt, effect: Effect) -> Input | None:
    """Carry out one effect; return what became of it, if the table asks for that.

    A NAK that might be late is not sent; the lease ends by itself. An ACK may be sent to the last
    moment of the lease: it says that nobody has to work on the task, which stays true.
    """
    if effect in _HAND_BACKS and not (surely_in_time(attempt) or await renew_lease(attempt)):
        attempt.reason = CancelReason.LEASE_LOST  # nothing is said, and the lease will end
        attempt.delivery.forget()
        return None
    answer = ANSWERS.get(effect)
    if answer is None:
        return await _PERFORM[effect](attempt)
    answer(attempt)
    return None


async def resume(attempt: Attempt) -> bool:
    """Go on with an attempt that has left the fast path: do again what it waited for.

    What was posted may be stored all the same; ids and conditions keep it from being stored twice:
    ``unsure`` makes the outcome conditional from its first send on. The states in which an attempt
    can come here are those of ``_LAST``; in any other one it has posted nothing.
    True if the handler shall run now.
    """
    attempt.unsure = True
    what = await _PERFORM[_LAST[attempt.state]](attempt)
    return what is not None and await feed(attempt, what)


async def declare(attempt: Attempt, outcome: Settlement) -> None:
    """Store an outcome while the handler is still running, and answer the task message.

    Called by ``TaskContext.complete`` and its kin. It returns when the outcome is stored and the
    message answered: what the handler does after it is not part of the step any more. The outcome
    is claimed before anything is sent: of two siblings, the second is refused at its call.

    Cancellation: before anything is sent; what is being stored is finished first.

    Raises:
        OutcomeError: the attempt has an outcome already, or can have none any more.
        NotStored: no acknowledgement within the lease; the task was handed back.
    """
    if attempt.outcome is not None:
        raise OutcomeError(
            f"{attempt.label} has ended already ({type(attempt.outcome).__name__}); the second "
            f"outcome ({type(outcome).__name__}) is refused: declare one per attempt"
        )
    if attempt.reason is not None or attempt.over:
        why = attempt.reason.value if attempt.reason else "its handler has returned"
        raise OutcomeError(f"{attempt.label} can have no outcome any more: {why}")
    await trio.lowlevel.checkpoint_if_cancelled()
    # Claimed before anything waits, so that a sibling's second outcome is refused.
    attempt.outcome = outcome = bounded(outcome, attempt.shared.broker.max_payload)
    if not await fast_path.confirmed(attempt):
        attempt.outcome = None
        raise NotStored(f"step.started of {attempt.label} was not stored; the task is handed back")
    if not fast_path.finish(attempt, outcome):
        await conclude(attempt, outcome)
    elif not await fast_path.settled(attempt):
        await resume(attempt)
    if attempt.verdict is Verdict.NOT_STORED:
        raise NotStored(
            f"the outcome of {attempt.label} was not acknowledged within its lease; the task is "
            "handed back and runs again"
        )


async def conclude(attempt: Attempt, outcome: Settlement) -> None:
    """Settle the attempt with this outcome, which fits the server (``outcome.bounded``).

    It has ended after it, whatever became of it: stored, not stored in time (a NAK), or settled by
    another delivery. For what cannot, or must not, go the fast path.
    """
    attempt.outcome = outcome
    await feed(attempt, INPUT_OF[type(outcome)])


async def _publish_started(attempt: Attempt) -> Input:
    """Store ``step.started``; its sequence is what the outcome may take for granted.

    Without it the handler does not run here: the engine would know nothing of the attempt.
    """
    shared = attempt.shared
    event = started_event(attempt)
    try:
        stored = await store_event(shared.broker, event, deadline=attempt.lease_until)
    except BrokerError as error:
        log.warning(
            "%s: step.started not stored, handing the task back: %s",
            attempt.label,
            error,
            extra=attempt.log_fields,
        )
        attempt.nak_delay = fast_path.STARTED_RETRY
        return Input.STARTED_NOT_STORED
    attempt.known_sequence = max(attempt.known_sequence, stored.sequence)
    return Input.STARTED_STORED


async def _publish_outcome(attempt: Attempt) -> Input:
    """Store the outcome, in its span; whatever happens is an input of the table.

    The run is not watched any more once it is stored: our own event may end the run, and that must
    not cancel the handler's clean-up.
    """
    assert attempt.outcome is not None
    if attempt.span is None:
        attempt.span = begin_outcome(
            attempt.shared.telemetry,
            attempt.outcome,
            attempt.task,
            attempt.iteration,
            attempt.trace,
        )
    try:
        verdict = await (_store_alone(attempt) if attempt.returned else _store_shielded(attempt))
    finally:
        end_span(attempt.span)
        attempt.span = None
    attempt.verdict = verdict
    if verdict is Verdict.NOT_STORED:
        attempt.nak_delay = OUTCOME_RETRY
        log.warning("%s: outcome not stored", attempt.label, extra=attempt.log_fields)
    else:
        attempt.in_flight.watch.leave(attempt)
    return _AFTER[verdict]


async def _store_alone(attempt: Attempt) -> Verdict:
    """Store after the handler: its own scope is the shield, which is half the price of another.

    Ended by the scope's deadline, the attempt goes to its farewell.
    """
    attempt.settling = attempt.scope
    attempt.scope.shield = True
    attempt.hasten()
    try:
        return await _store_outcome(attempt)
    finally:
        attempt.settling = None


async def _store_shielded(attempt: Attempt) -> Verdict:
    """Store inside the handler, whose own cancel scopes must not interrupt it."""
    with trio.CancelScope(shield=True, deadline=attempt.lease_until) as scope:
        attempt.settling = scope
        attempt.hasten()
        verdict = await _store_outcome(attempt)
    attempt.settling = None
    # Else the lease has ended, or a drain was in a hurry.
    return Verdict.NOT_STORED if scope.cancelled_caught else verdict


async def _store_outcome(attempt: Attempt) -> Verdict:
    """Store the outcome by the rules of ``settle``; one that is too large becomes a failure.

    Signals that a continue consumes are noted first: an iteration that is over must not leave them
    to the next one. A loop's checkpoint has them already, in the same write as its state.
    """
    shared, outcome = attempt.shared, attempt.outcome
    assert outcome is not None
    event = outcome_event(attempt, outcome)
    claim = Claim(
        task=attempt.task,
        dispatch=attempt.dispatch,
        published_ns=attempt.published_ns,
        first=attempt.delivery.deliveries == 1 and not attempt.unsure,
        until=attempt.lease_until,
        known=attempt.known_sequence,
    )
    try:
        memory = attempt.own_memory
        if memory is not None and isinstance(outcome, Continued) and not attempt.program.loop:
            await memory.commit_signals()  # a loop's own checkpoint holds them already
        return await shared.settler.settle(claim, event)
    except BrokerError as error:
        # One attempt's trouble (a full disk, a stream that is gone) must not end the worker.
        if isinstance(outcome, Failed) or not isinstance(error, TooLarge):
            log.warning("%s: %s", attempt.label, error, extra=attempt.log_fields)
            return Verdict.NOT_STORED
        attempt.outcome = Failed(kind=FailureType.NON_RETRIABLE, error=f"output refused: {error}")
        return await _store_outcome(attempt)


async def _write_note(attempt: Attempt) -> None:
    """Write what the attempt leaves to the next delivery; an attempt without a note has nothing."""
    if attempt.own_memory is None:
        return
    try:
        await attempt.own_memory.write()
    except BrokerError as error:
        log.warning("%s: note not kept: %s", attempt.label, error, extra=attempt.log_fields)


_PERFORM: Mapping[Effect, Callable[[Attempt], Awaitable[Input | None]]] = {
    Effect.KEEP_MESSAGE: keep,
    Effect.PUBLISH_STARTED: _publish_started,
    Effect.PUBLISH_OUTCOME: _publish_outcome,
    Effect.WRITE_NOTE: _write_note,
}
# What an attempt was waiting for when it left the fast path, by its state.
_LAST = {State.STARTING: Effect.PUBLISH_STARTED, State.SETTLING: Effect.PUBLISH_OUTCOME}
