"""One seam for traces and metrics, silent by default.

The worker calls it where the Go worker has its spans and instruments (contract 11), so an exporter
can be written without touching the worker. Names of spans and metrics are Go's.

| span | from | to | begun by |
|---|---|---|---|
| ``executeTask <task>`` | the handler's call | its end | ``execute.run_handler`` |
| ``worker.complete`` ... | an outcome is sent | it is stored, or not | ``fast_path``, ``effects`` |

| number | kind | changed |
|---|---|---|
| ``worker.tasks.active`` | up and down | around the handler |
| ``step.duration_ms`` | histogram | at the handler's end |
| ``step.retries`` | counter | for each retriable failure that a handler has raised |
| ``worker.tasks.cancelled_skipped`` | counter | for each task whose run was over before it began |

Spans are ended by a call and are no context managers: the one of an outcome is begun in a task and
ended by a callback of the transport. Without an exporter nobody calls most of this
(``Shared.silent``): the ordinary attempt has no spans then.
"""

from collections.abc import Mapping
from typing import Protocol, final

from trio_dagnats.attempt.outcome import Completed, Continued, Failed, Settlement
from trio_dagnats.errors import DagnatsError
from trio_dagnats.inspection import class_name, is_interrupt, text_of
from trio_dagnats.logs import Log
from trio_dagnats.wire.events import FailureType
from trio_dagnats.wire.task import Task
from trio_dagnats.wire.trace import NO_TRACE, TraceContext

log = Log("trio_dagnats.worker")

Attributes = Mapping[str, str | int]

ACTIVE_TASKS = "worker.tasks.active"
CANCELLED_SKIPPED = "worker.tasks.cancelled_skipped"
STEP_DURATION_MS = "step.duration_ms"
STEP_RETRIES = "step.retries"

_FAILURES = {
    FailureType.RETRIABLE: "worker.fail",
    FailureType.NON_RETRIABLE: "worker.failPermanent",
    FailureType.RETRY_AFTER: "worker.failRetryAfter",
}


class Span(Protocol):
    """An open span. It is ended once, perhaps by a callback and not by the task that began it.

    So it must not depend on the context variables of that task.
    """

    def record_error(self, error: BaseException) -> None:
        """Mark the span as failed with this exception."""
        ...

    def end(self) -> None:
        """End the span now."""
        ...

    def trace(self) -> TraceContext:
        """Return the context that goes into the events of this attempt."""
        ...


class Telemetry(Protocol):
    """What an exporter implements. Nothing of it may wait; what it raises is logged, no more."""

    def span(self, name: str, parent: TraceContext, attributes: Attributes) -> Span:
        """Begin a span, which the worker ends.

        Args:
            name: ``executeTask <task>``, ``worker.complete`` and so on.
            parent: the trace fields of the task message; empty if it had none.
            attributes: by the Go worker's names (``run_id``, ``step_id``, ``task_name`` ...).
        """
        ...

    def count(self, name: str, change: int) -> None:
        """Change a counter or an up-down counter."""
        ...

    def record(self, name: str, value: float) -> None:
        """Add a value to a histogram."""
        ...


@final
class _NoSpan:
    """Passes the task's own trace fields on: without a tracer nothing must break the chain."""

    __slots__ = ("_parent",)

    def __init__(self, parent: TraceContext) -> None:
        self._parent = parent

    def record_error(self, error: BaseException) -> None:
        """Forget the error: it is logged elsewhere."""

    def end(self) -> None:
        """Forget that it was open."""

    def trace(self) -> TraceContext:
        """Return the parent's fields unchanged."""
        return self._parent


@final
class NoTelemetry:
    """The silent default."""

    def span(
        self,
        name: str,  # noqa: ARG002 - the protocol's signature
        parent: TraceContext,
        attributes: Attributes,  # noqa: ARG002 - the protocol's signature
    ) -> Span:
        """Begin nothing."""
        return _NoSpan(parent)

    def count(self, name: str, change: int) -> None:
        """Count nothing."""

    def record(self, name: str, value: float) -> None:
        """Record nothing."""


NO_SPAN: Span = _NoSpan(NO_TRACE)
"""Stands for one that could not be begun."""


# Each part of an exporter is called in a ``try`` of its own, and not through a helper: these
# functions are called for every task, and the exporter's methods are all that they may cost.


def begin_task(
    telemetry: Telemetry, task: Task, task_type: str, parent: TraceContext
) -> tuple[Span, TraceContext]:
    """Count a task and begin the span ``executeTask <task>``, in which its handler runs.

    Returns:
        The span, and the trace for the events of the task: the exporter's, else the parent's.
    """
    attributes: dict[str, str | int] = {
        "run_id": task.run_id,
        "step_id": task.step_id,
        "task_name": task_type,
    }
    if task.workflow_name:
        attributes["workflow_name"] = task.workflow_name
    try:
        telemetry.count(ACTIVE_TASKS, 1)
    except BaseException as bad:  # noqa: BLE001 - the exporter's fault is told
        _tell(bad)
    span = NO_SPAN
    trace: object = None
    try:
        span = telemetry.span(f"executeTask {task_type}", parent, attributes)
        trace = span.trace()
    except BaseException as bad:  # noqa: BLE001 - the exporter's fault is told
        _tell(bad)
    return span, trace if isinstance(trace, TraceContext) else parent


def end_task(telemetry: Telemetry, span: Span, error: BaseException | None, took: float) -> None:
    """End the span of a handler and count that; what has cancelled it is no error.

    Args:
        telemetry: the exporter.
        span: the span.
        error: what the handler has raised.
        took: the seconds that it ran.
    """
    if isinstance(error, Exception):
        _fail(span, error)
    try:
        span.end()
    except BaseException as bad:  # noqa: BLE001 - the exporter's fault is told
        _tell(bad)
    try:
        telemetry.count(ACTIVE_TASKS, -1)
    except BaseException as bad:  # noqa: BLE001 - the exporter's fault is told
        _tell(bad)
    try:
        telemetry.record(STEP_DURATION_MS, round(took * 1000))
    except BaseException as bad:  # noqa: BLE001 - the exporter's fault is told
        _tell(bad)


def begin_outcome(
    telemetry: Telemetry, outcome: Settlement, task: Task, iteration: int, parent: TraceContext
) -> Span:
    """Begin the span in which an outcome is stored.

    Args:
        telemetry: the exporter.
        outcome: completed, continued or failed; a failure is recorded as an error of the span.
        task: the task.
        iteration: loop iterations committed before this one.
        parent: the trace that goes into the attempt's events.
    """
    attributes: dict[str, str | int] = {"run_id": task.run_id, "step_id": task.step_id}
    name = "worker.complete"
    if isinstance(outcome, Completed):
        attributes["output_size_bytes"] = len(outcome.output)
    elif isinstance(outcome, Continued):
        name, attributes["iteration"] = "worker.continue", iteration
    else:
        name, attributes["error"] = _FAILURES[outcome.kind], outcome.error
        if outcome.kind is not FailureType.RETRIABLE:
            attributes["failure_type"] = outcome.kind.value
    try:
        span = telemetry.span(name, parent, attributes)
    except BaseException as bad:  # noqa: BLE001 - the exporter's fault is told
        _tell(bad)
        return NO_SPAN
    if isinstance(outcome, Failed):
        _fail(span, DagnatsError(outcome.error))
    return span


def end_span(span: Span) -> None:
    """End a span."""
    try:
        span.end()
    except BaseException as bad:  # noqa: BLE001 - the exporter's fault is told
        _tell(bad)


def count(telemetry: Telemetry, name: str, change: int) -> None:
    """Change a counter."""
    try:
        telemetry.count(name, change)
    except BaseException as bad:  # noqa: BLE001 - the exporter's fault is told
        _tell(bad)


def _fail(span: Span, error: BaseException) -> None:
    try:
        span.record_error(error)
    except BaseException as bad:  # noqa: BLE001 - the exporter's fault is told
        _tell(bad)


def _tell(bad: BaseException) -> None:
    """Log what an exporter has raised; a Ctrl-C is raised again."""
    if is_interrupt(bad):
        raise bad
    log.warning("telemetry failed: %s: %s", class_name(bad), text_of(bad))
