"""One seam for traces and metrics, silent by default.

The worker calls it where the Go worker has its spans and instruments (contract 11), so an exporter
can be written without touching the worker. Names of spans and metrics are Go's.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, final

from trio_dagnats.attempt.outcome import Completed, Failed, Settlement
from trio_dagnats.wire.events import FailureType
from trio_dagnats.wire.task import Task
from trio_dagnats.wire.trace import TraceContext

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
    """An open span."""

    def record_error(self, error: BaseException) -> None:
        """Mark the span as failed with this exception."""
        ...

    def trace(self) -> TraceContext:
        """Return the context that goes into the events of this attempt."""
        ...


class Telemetry(Protocol):
    """What an exporter implements. Nothing of it may wait or raise."""

    def span(
        self, name: str, parent: TraceContext, attributes: Attributes
    ) -> AbstractContextManager[Span]:
        """Open a span for the length of a block.

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
    ) -> AbstractContextManager[Span]:
        """Open nothing."""
        return nullcontext(_NoSpan(parent))

    def count(self, name: str, change: int) -> None:
        """Count nothing."""

    def record(self, name: str, value: float) -> None:
        """Record nothing."""


def task_attributes(task: Task, task_type: str) -> Attributes:
    """Return the attributes of ``executeTask <task>``."""
    attributes: dict[str, str | int] = {
        "run_id": task.run_id,
        "step_id": task.step_id,
        "task_name": task_type,
    }
    if task.workflow_name:
        attributes["workflow_name"] = task.workflow_name
    return attributes


def outcome_span(outcome: Settlement, task: Task, iteration: int) -> tuple[str, Attributes]:
    """Return name and attributes of the span in which an outcome is stored."""
    attributes: dict[str, str | int] = {"run_id": task.run_id, "step_id": task.step_id}
    if isinstance(outcome, Completed):
        attributes["output_size_bytes"] = len(outcome.output)
        return "worker.complete", attributes
    if isinstance(outcome, Failed):
        attributes["error"] = outcome.error
        if outcome.kind is not FailureType.RETRIABLE:
            attributes["failure_type"] = outcome.kind.value
        return _FAILURES[outcome.kind], attributes
    attributes["iteration"] = iteration
    return "worker.continue", attributes
