"""Runs, steps and events as JSON documents: what ``--json`` writes. Pure; times are RFC 3339."""

import json

from trio_dagnats.client import AttemptTimeline, RunTimeline, StepTimeline, WorkflowRun
from trio_dagnats.wire.events import HistoryEvent
from trio_dagnats.wire.text import NS, rfc3339

Document = dict[str, object]


def of_run(run: WorkflowRun) -> Document:
    """Describe a run without its steps."""
    step_id, error = run.failed_step()
    return {
        "run_id": run.run_id,
        "workflow": run.workflow_id,
        "status": run.status.value,
        "created_at": run.created_at or None,
        "completed_at": run.completed_at or None,
        "failed_step": step_id or None,
        "error": error or None,
    }


def of_timeline(found: RunTimeline) -> Document:
    """Describe a run with its steps and their attempts."""
    return {
        **of_run(found.run),
        "seconds": _seconds(found.started_ns, found.ended_ns),
        "input": found.run.input,
        "steps": [_of_step(step) for step in found.steps],
    }


def of_event(event: HistoryEvent) -> Document:
    """Describe an event."""
    found: Document = {
        "type": event.type,
        "run_id": event.run_id,
        "step_id": event.step_id or None,
        "at": _at(event.timestamp_ns),
        "attempt": event.attempt_number,
        "worker_id": event.worker_id or None,
        "payload": json.loads(event.payload) if event.payload else None,
    }
    return {key: value for key, value in found.items() if value is not None}


def of_chunk(run_id: str, step_id: str, data: bytes, now_ns: int) -> Document:
    """Describe a stream chunk; bytes that are no UTF-8 are replaced."""
    return {
        "type": "stream",
        "run_id": run_id,
        "step_id": step_id,
        "at": rfc3339(now_ns),
        "data": data.decode(errors="replace"),
    }


def _of_step(step: StepTimeline) -> Document:
    return {
        "id": step.id,
        "type": step.type or None,
        "task": step.task or None,
        "status": step.state.status.value,
        "started_at": _at(step.begun_ns),
        "ended_at": _at(step.ended_ns),
        "seconds": _seconds(step.begun_ns, step.ended_ns),
        "iterations": step.state.iterations,
        "output": _output(step),
        "error": step.state.error or None,
        "attempts": [_of_attempt(attempt) for attempt in step.attempts],
    }


def _output(step: StepTimeline) -> object:
    if step.state.map_instances and not step.state.output:
        return [instance.output for instance in step.state.map_instances]
    return step.state.value()


def _of_attempt(attempt: AttemptTimeline) -> Document:
    return {
        "step_id": attempt.step_id,
        "number": attempt.number,
        "end": attempt.end.value,
        "started_at": _at(attempt.started_ns),
        "ended_at": _at(attempt.ended_ns),
        "seconds": _seconds(attempt.started_ns, attempt.ended_ns),
        "starts": attempt.starts,
        "worker_id": attempt.worker_id or None,
        "error": attempt.error or None,
    }


def _at(ns: int | None) -> str | None:
    return None if ns is None else rfc3339(ns)


def _seconds(started_ns: int | None, ended_ns: int | None) -> float | None:
    if started_ns is None or ended_ns is None:
        return None
    return (ended_ns - started_ns) / NS
