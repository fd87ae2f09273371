"""Why the worker cancels an attempt."""

from enum import Enum
from typing import final


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
    """The engine acts on a deadline only when an event arrives (contract H27), so one is sent."""
    STEP_TIMEOUT = "the engine timed the step out"
    """Nothing is published; the engine has already decided about a retry."""
    LEASE_LOST = "the lease on the task message ended"
    """Nothing at all is sent: another worker may hold the task by now (design 8.7)."""
    NOT_STARTED = "the server did not store step.started"
    """Only with ``pipeline_started``: handed back, for the engine knows nothing of the attempt."""
    HANDED_BACK = "pause(hand_back=True)"
    """The handler asked for it: the task comes back after the pause."""
    BROKEN_OFF = "its own task has ended the worker"
    """By a Ctrl-C that struck it, or an error of the worker's own: handed back, but not as if it
    were let go, so that a task which does so each time ends (design 8.2). No handler sees it."""
