"""Why the worker cancels an attempt, and all that follows from it. Pure.

The first reason counts (``Attempt.cancel``): the run watch's, a drain's, that of a ``pause``. Only
``LEASE_LOST`` takes another's place, when a hand-back could no longer be sent in time. The handler
reads it as ``cancel_reason``; it is acted upon once, in ``worker.execution.farewell``.
"""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple, final

from trio_dagnats.attempt.life import Input
from trio_dagnats.wire.events import EventType, HistoryEvent
from trio_dagnats.wire.task import Task


@final
class CancelReason(Enum):
    """Why a handler's scope was cancelled; ``TaskContext.cancel_reason`` reads it."""

    DRAIN = "the worker is shutting down"
    """The task is handed back at once (NAK); another worker starts it from its top."""
    RUN_CANCELLED = "the run was cancelled"
    """Nothing is published; the task is done with (ACK)."""
    RUN_ENDED = "the run has ended"
    """Like ``RUN_CANCELLED``, for a run that failed or completed without this attempt."""
    RUN_DEADLINE = "the run's deadline has passed"
    """The engine acts on a deadline only when an event arrives, so one is sent."""
    STEP_TIMEOUT = "the engine timed the step out"
    """Nothing is published; the engine has already decided about a retry."""
    LEASE_LOST = "the lease on the task message ended"
    """Nothing at all is sent: another worker may hold the task by now."""
    NOT_STARTED = "the server did not store step.started"
    """Only with ``pipeline_started``: handed back, for the engine knows nothing of the attempt."""
    HANDED_BACK = "pause(hand_back=True)"
    """The handler asked for it: the task comes back after the pause."""
    BROKEN_OFF = "its own task has ended the worker"
    """By a Ctrl-C that struck it, or an error of the worker's own: handed back, but not as if it
    were let go, so that a task which does so each time ends. No handler sees it."""


@final
class Ending(NamedTuple):
    """What follows from a reason.

    Attributes:
        input: what it is to the table of an attempt's life.
        word: what the ledger says of the attempt.
        hands_back: the task is let go on purpose, which the note has to say.
        run_is_over: nobody will ask for anything that the attempt has stored.
    """

    input: Input
    word: str
    hands_back: bool = False
    run_is_over: bool = False


ENDINGS: Mapping[CancelReason, Ending] = {
    CancelReason.DRAIN: Ending(Input.DRAINED, "handed back", hands_back=True),
    CancelReason.RUN_CANCELLED: Ending(Input.RUN_ENDED, "run ended", run_is_over=True),
    CancelReason.RUN_ENDED: Ending(Input.RUN_ENDED, "run ended", run_is_over=True),
    # Only before the handler ran, else its outcome is a failure: whoever is next will see.
    CancelReason.RUN_DEADLINE: Ending(Input.DRAINED, "handed back"),
    CancelReason.STEP_TIMEOUT: Ending(Input.RUN_ENDED, "run ended"),
    CancelReason.LEASE_LOST: Ending(Input.LEASE_LOST, "lease left to expire"),
    CancelReason.NOT_STARTED: Ending(Input.HANDED_BACK, "handed back", hands_back=True),
    CancelReason.BROKEN_OFF: Ending(Input.DRAINED, "handed back"),
    CancelReason.HANDED_BACK: Ending(Input.HANDED_BACK, "handed back", hands_back=True),
}
"""All that the worker does by reason, in one table."""


def reason_of(event: HistoryEvent, task: Task) -> CancelReason | None:
    """Say why an event of a run ends the attempt that works on a task; None if it does not.

    The engine's timeout of a step is a failure without a worker, of the attempt's own number.
    """
    if event.type == EventType.WORKFLOW_CANCELLED:
        return CancelReason.RUN_CANCELLED
    if event.type in {EventType.WORKFLOW_FAILED, EventType.WORKFLOW_COMPLETED}:
        return CancelReason.RUN_ENDED
    timed_out = (
        event.type == EventType.STEP_FAILED
        and not event.worker_id
        and event.step_id == task.step_id
        and event.attempt_number == task.number
    )
    return CancelReason.STEP_TIMEOUT if timed_out else None
