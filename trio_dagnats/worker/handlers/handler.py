"""What was registered: one :class:`Handler` per task type and group, checked when it is added."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, final

from trio_dagnats.attempt.outcome import Outcome
from trio_dagnats.errors import UsageError
from trio_dagnats.wire.names import check_group, check_served, check_task_type

if TYPE_CHECKING:
    from trio_dagnats.worker.context.context import TaskContext

MIN_ACK_WAIT = 1.0
MAX_ACK_WAIT = 86_400.0
MAX_CONCURRENCY = 100_000
"""The ``max_ack_pending`` of our durables (design 8.10): more could not be delivered."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """A served task type.

    Attributes:
        task_type: the task name of workflow steps.
        group: the ``worker_group`` served, empty for steps of any group.
        call: runs the user's function on a context.
        outcome: says what outcome its value means.
        concurrency: attempts of this handler at once, None for the worker's own bound.
        ack_wait: seconds of the lease on a task message.
        threaded: the user's function is synchronous and runs in a trio thread.
        loop: one call per engine iteration, with its state in the checkpoint.
    """

    task_type: str
    group: str
    call: "Callable[[TaskContext], Awaitable[object]]"
    outcome: Callable[[object], Outcome]
    concurrency: int | None
    ack_wait: float
    threaded: bool
    loop: bool = False

    def __post_init__(self) -> None:
        """Check every value, so that a handler that exists is one that can be served."""
        check_task_type(self.task_type)
        if self.group:
            check_group(self.group)
        if self.concurrency is not None and not 1 <= self.concurrency <= MAX_CONCURRENCY:
            raise UsageError(
                f"concurrency of handler {self.task_type!r} must be 1 to {MAX_CONCURRENCY} "
                f"or None, not {self.concurrency!r}"
            )
        if not (isfinite(self.ack_wait) and MIN_ACK_WAIT <= self.ack_wait <= MAX_ACK_WAIT):
            raise UsageError(
                f"ack_wait of handler {self.task_type!r} must be {MIN_ACK_WAIT:g} to "
                f"{MAX_ACK_WAIT:g} seconds, not {self.ack_wait!r}"
            )


@final
class Registry:
    """The handlers of one worker, in the order of their registration."""

    def __init__(self) -> None:
        self._handlers: dict[tuple[str, str], Handler] = {}

    def __len__(self) -> int:
        return len(self._handlers)

    def add(self, handler: Handler) -> None:
        """Add a handler.

        Raises:
            UsageError: the type (and group) has a handler already, or its name clashes with
                another one's on the server (contract 3.4).
        """
        served = (handler.task_type, handler.group)
        if served in self._handlers:
            group = f" in group {handler.group!r}" if handler.group else ""
            raise UsageError(
                f"task type {handler.task_type!r}{group} has a handler already; register one "
                "handler per task type, or give this one another group"
            )
        check_served(served, self._handlers)
        self._handlers[served] = handler

    def handlers(self) -> list[Handler]:
        """Return all handlers."""
        return list(self._handlers.values())

    def task_types(self) -> tuple[str, ...]:
        """Return the served task types, each once, for the worker's directory entry."""
        return tuple(dict.fromkeys(task_type for task_type, _ in self._handlers))
