"""Registering a handler, as a call or as a decorator.

The three ways to register differ in their ``adapt`` alone (``adapters``), so what is checked and
kept is written once, here.
"""

from collections.abc import Callable
from typing import TypedDict, TypeVar

from trio_dagnats.errors import UsageError
from trio_dagnats.worker.attempts.attempt import Program
from trio_dagnats.worker.handlers.adapters import Adapted
from trio_dagnats.worker.handlers.handler import Handler, Registry
from trio_dagnats.worker.intake.served import Served

F = TypeVar("F", bound=Callable[..., object])

ACK_WAIT = 300.0
"""Seconds of the lease on a task."""

Adapt = Callable[[Callable[..., object]], Adapted]
"""Turns a user's function into what the worker calls."""


class HandleOptions(TypedDict, total=False):
    """How a task type is served.

    Attributes:
        concurrency: attempts of this handler at once; the worker's own bound by default.
        group: serve only steps of this ``worker_group``; steps of any group by default.
        ack_wait: seconds of the lease, 300 by default; never shortens that of a live consumer.
    """

    concurrency: int | None
    group: str | None
    ack_wait: float


def register(
    registry: Registry, adapt: Adapt, task_type: str, handler: F | None, options: HandleOptions
) -> F | Callable[[F], F]:
    """Add a handler, or return the decorator that does.

    The function comes back as it was given: it can still be called, and registered again elsewhere.

    Raises:
        UsageError: a name, value or signature that cannot be served, or a second handler.
    """
    unknown = options.keys() - HandleOptions.__annotations__.keys()
    if unknown:
        raise UsageError(
            f"unknown option {', '.join(map(repr, sorted(unknown)))} for task type {task_type!r}; "
            f"there are {', '.join(HandleOptions.__annotations__)}"
        )

    def decorate(function: F) -> F:
        adapted = adapt(function)
        served = Served(
            task_type=task_type,
            group=options.get("group") or "",
            concurrency=options.get("concurrency"),
            ack_wait=options.get("ack_wait", ACK_WAIT),
        )
        program = Program(
            task_type=task_type,
            call=adapted.call,
            outcome=adapted.outcome,
            threaded=adapted.threaded,
            loop=adapted.loop,
        )
        registry.add(Handler(served, program))
        return function

    return decorate if handler is None else decorate(handler)
