"""The spans of a worker, with the Go worker's names and attributes (contract section 11)."""

from trio_dagnats.attempt.outcome import Completed, Failed, Settlement
from trio_dagnats.wire.events import FailureType
from trio_dagnats.wire.task import Task
from trio_dagnats.worker.telemetry import Attributes

_FAILURES = {
    FailureType.RETRIABLE: "worker.fail",
    FailureType.NON_RETRIABLE: "worker.failPermanent",
    FailureType.RETRY_AFTER: "worker.failRetryAfter",
}


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
