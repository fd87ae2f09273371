"""One seam for traces and metrics, silent by default.

The worker calls it where the Go worker has its spans and instruments (contract section 11), so an
exporter can be written without touching the worker. Names of spans and metrics are Go's.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import TracebackType
from typing import ParamSpec, Protocol, TypeVar, final

from trio_dagnats.inspection import class_name, is_interrupt, text_of
from trio_dagnats.logs import Log
from trio_dagnats.wire.trace import TraceContext

log = Log("trio_dagnats.worker")

P = ParamSpec("P")
T = TypeVar("T")

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
    """What an exporter implements. Nothing of it may wait; what it raises is logged, no more."""

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


@final
class Guarded:
    """Calls an exporter whose faults concern nobody else: no attempt fails because of one.

    Args:
        telemetry: the exporter.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry

    def span(
        self, name: str, parent: TraceContext, attributes: Attributes
    ) -> AbstractContextManager[Span]:
        """Open a span; one that cannot be opened is as if there were none."""
        return _GuardedSpan(partial(self._telemetry.span, name, parent, attributes), parent)

    def count(self, name: str, change: int) -> None:
        """Change a counter."""
        _tried(self._telemetry.count, name, change)

    def record(self, name: str, value: float) -> None:
        """Add a value."""
        _tried(self._telemetry.record, name, value)


@final
class _GuardedSpan(AbstractContextManager[Span]):
    """A span of an exporter; it cannot swallow what its block raises, either."""

    def __init__(
        self, make: Callable[[], AbstractContextManager[Span]], parent: TraceContext
    ) -> None:
        self._make = make
        self._parent = parent
        self._block: AbstractContextManager[Span] | None = None
        self._span: Span | None = None

    def __enter__(self) -> Span:
        block = _tried(self._make)
        if block is not None:
            self._span = _tried(block.__enter__)
            self._block = block if self._span is not None else None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._block is not None:
            _tried(self._block.__exit__, kind, error, trace)

    def record_error(self, error: BaseException) -> None:
        """Mark the span as failed."""
        if self._span is not None:
            _tried(self._span.record_error, error)

    def trace(self) -> TraceContext:
        """Return the exporter's context, else the parent's."""
        found = _tried(self._span.trace) if self._span is not None else None
        return found if isinstance(found, TraceContext) else self._parent


def _tried(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Call the exporter; None if it raises."""
    try:
        return call(*args, **kwargs)
    except BaseException as bad:
        if is_interrupt(bad):
            raise
        log.warning("telemetry failed: %s: %s", class_name(bad), text_of(bad))
        return None
