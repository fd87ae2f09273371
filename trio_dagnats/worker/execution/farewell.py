"""The farewell of an attempt that was ended from outside: what is said about its message.

Each reason says what follows from it (``attempt/reasons``); the table of an attempt's life says
what is done. All of it has ``FAREWELL`` seconds, and never more than the lease. Put together:

| reason | before ``step.started`` | before or in the handler | its outcome is under way |
|---|---|---|---|
| ``DRAIN`` | NAK | note, NAK; in a pause with what is left of it | NAK |
| ``RUN_CANCELLED``, ``RUN_ENDED``, ``STEP_TIMEOUT`` | ACK | ACK | ACK |
| ``RUN_DEADLINE`` | NAK | in the handler ``step.failed``, then ACK | NAK |
| ``NOT_STARTED``, ``HANDED_BACK`` | - | note, NAK with the delay | - |
| ``BROKEN_OFF`` | NAK | NAK, and the start counts | NAK |
| ``LEASE_LOST`` | nothing | nothing | nothing |

"Its outcome is under way" is what has not ended within the second that a cancellation leaves it;
the ACK there is no success, but the end of a task that nobody needs any more.

In order: the reason is fixed, ``step.started`` is sent no more, the note is read and written, the
message is answered. Of a worker that dies before the answer the task comes again after its lease;
if the note was not written either, the start counts as one that got no further.
"""

import trio

from trio_dagnats.attempt.life import Input, State
from trio_dagnats.attempt.outcome import Failed
from trio_dagnats.attempt.reasons import ENDINGS, CancelReason
from trio_dagnats.errors import BrokerError
from trio_dagnats.logs import Log
from trio_dagnats.wire.events import FailureType
from trio_dagnats.wire.text import NS
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.deadlines import FAREWELL
from trio_dagnats.worker.execution import fast_path
from trio_dagnats.worker.execution.effects import conclude, feed, surely_in_time

log = Log("trio_dagnats.worker")


async def farewell(attempt: Attempt) -> None:
    """Answer the message of an attempt that was ended from outside; decide first, then act once.

    Called by the pool at the end of each task that does not end in the ordinary way. Nothing is
    done for an attempt that has answered, or whose posted outcome a callback will see to. Without a
    reason it is the lease that has ended, for its scope has no other deadline.

    Cancellation: shielded, for ``FAREWELL`` seconds at most, and never longer than the lease.
    """
    if attempt.ended or attempt.pending is not None:
        return
    attempt.reason = attempt.reason or CancelReason.LEASE_LOST
    fast_path.drop_start(attempt)
    limit = min(trio.current_time() + FAREWELL, attempt.lease_until)
    with trio.CancelScope(shield=True, deadline=limit):
        await _answer(attempt, attempt.reason)
    _answer_at_last(attempt)
    if attempt.reason is CancelReason.LEASE_LOST:
        attempt.delivery.forget()


async def _answer(attempt: Attempt, reason: CancelReason) -> None:
    """Do what the table says for the reason; a run's deadline is told to the engine by a failure.

    A pause that is cut short by a drain is handed back for what is left of it.
    """
    if reason is CancelReason.RUN_DEADLINE and attempt.state is State.RUNNING:
        text = "the run's deadline has passed"
        await conclude(attempt, Failed(kind=FailureType.NON_RETRIABLE, error=text))
        return
    ending = ENDINGS[reason]
    if ending.hands_back:
        await _prepare_hand_back(attempt)
    running = attempt.state is State.RUNNING
    paused = running and attempt.nak_delay > 0
    await feed(attempt, Input.HANDED_BACK if paused else ending.input)


def _answer_at_last(attempt: Attempt) -> None:
    """Hand back what could not be answered in time because its note was too slow."""
    if attempt.ended or attempt.reason is CancelReason.LEASE_LOST:
        return
    if surely_in_time(attempt):
        attempt.delivery.nak(attempt.nak_delay, not_after=attempt.lease_until)
    else:
        attempt.reason = CancelReason.LEASE_LOST


async def _prepare_hand_back(attempt: Attempt) -> None:
    """Note that the attempt is let go on purpose, and for how long."""
    attempt.nak_delay = 0.0
    until_ns = max((wait.until_ns for wait in attempt.waits), default=0)
    if until_ns:
        attempt.nak_delay = max(0.0, (until_ns - attempt.shared.broker.time_ns()) / NS)
    if attempt.state not in {State.STARTING, State.RUNNING}:
        return
    try:
        await attempt.memory.read()
        attempt.memory.let_go()
    except BrokerError:
        log.warning("%s: handed back without a note", attempt.label, extra=attempt.log_fields)
