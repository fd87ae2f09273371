"""One seam for traces and metrics, silent by default.

The worker calls it where the Go worker has its spans and instruments (contract section 11), so an
exporter can be written without touching the worker. Names of spans and metrics are Go's.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, final

from trio_dagnats.wire.trace import TraceContext

Attributes = Mapping[str, str | int]

ACTIVE_TASKS = "worker.tasks.active"
CANCELLED_SKIPPED = "worker.tasks.cancelled_skipped"
STEP_DURATION_MS = "step.duration_ms"
STEP_RETRIES = "step.retries"


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
            attributes: the contract's names (``run_id``, ``step_id``, ``task_name`` ...).
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
