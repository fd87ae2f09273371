"""What was registered: one :class:`Handler` per task type and group, checked when it is added."""

from typing import NamedTuple, final

from trio_dagnats.errors import UsageError
from trio_dagnats.wire.names import check_served
from trio_dagnats.worker.attempts.attempt import Program
from trio_dagnats.worker.intake.served import Served


@final
class Handler(NamedTuple):
    """A registered handler: what it serves, and what runs for each task.

    A pair, because what pulls tasks must not know what runs for them (``intake``).
    """

    served: Served
    program: Program


@final
class Registry:
    """The handlers of one worker, in the order of their registration.

    Written before the worker runs, read after that: ``Worker`` refuses to add to it meanwhile.
    """

    def __init__(self) -> None:
        self._handlers: dict[tuple[str, str], Handler] = {}

    def __len__(self) -> int:
        return len(self._handlers)

    def add(self, handler: Handler) -> None:
        """Add a handler.

        Raises:
            UsageError: the type (and group) has a handler already, or its name clashes with
                another one's on the server.
        """
        about = handler.served
        served = (about.task_type, about.group)
        if served in self._handlers:
            group = f" in group {about.group!r}" if about.group else ""
            raise UsageError(
                f"task type {about.task_type!r}{group} has a handler already; register one "
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
