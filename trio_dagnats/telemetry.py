"""The seam for traces and metrics: what an exporter implements, and the words in it.

Give an object with the methods of :class:`Telemetry` to :class:`~trio_dagnats.Worker`. Importing
this loads no exporter and changes nothing.
"""

from trio_dagnats.wire.trace import TraceContext
from trio_dagnats.worker.telemetry import (
    ACTIVE_TASKS,
    CANCELLED_SKIPPED,
    STEP_DURATION_MS,
    STEP_RETRIES,
    Attributes,
    NoTelemetry,
    Span,
    Telemetry,
)

__all__ = [
    "ACTIVE_TASKS",
    "CANCELLED_SKIPPED",
    "STEP_DURATION_MS",
    "STEP_RETRIES",
    "Attributes",
    "NoTelemetry",
    "Span",
    "Telemetry",
    "TraceContext",
]
