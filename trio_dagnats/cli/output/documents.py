"""Runs, steps and events as JSON documents: what ``--json`` writes. Pure; times are RFC 3339.

These are an interface: programs read them, so keys are only added (the command line's ``--json``
output is public). A value that is not known is ``null`` in runs and steps, so that their keys
are always there. An event has only the keys that it has something for: there are many kinds of
them.

``seconds`` are computed here, and as numbers, so that nobody has to read two times to get one. They
are ``null`` while something goes on.
"""

import json

from trio_dagnats.client import AttemptTimeline, RunTimeline, StepTimeline, WorkflowRun
from trio_dagnats.wire.events import HistoryEvent
from trio_dagnats.wire.text import NS, rfc3339

Document = dict[str, object]


def of_run(run: WorkflowRun) -> Document:
    """Describe a run without its steps.

    Times stand as the engine has stored them, with its precision.
    """
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
    """Describe a run with its steps and their attempts.

    What ``show --json`` writes. The workflow's definition is not in it.
    """
    return {
        **of_run(found.run),
        "seconds": _seconds(found.started_ns, found.ended_ns),
        "input": found.run.input,
        "steps": [_of_step(step) for step in found.steps],
    }


def of_event(event: HistoryEvent) -> Document:
    """Describe an event.

    The payload is parsed: a string of JSON inside JSON would be of no use to anybody.
    """
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
    """Describe a stream chunk; bytes that are no UTF-8 are replaced.

    The time is that of its arrival here, as a chunk has none of its own. Its ``type`` is no
    event's, so ``tail --json`` can mix both.
    """
    return {
        "type": "stream",
        "run_id": run_id,
        "step_id": step_id,
        "at": rfc3339(now_ns),
        "data": data.decode(errors="replace"),
    }


def _of_step(step: StepTimeline) -> Document:
    """Describe a step as the engine keeps it, with the attempts that its history tells of.

    Type and task are ``null`` if the history does not hold the definition any more.
    """
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
    """Return a step's output; for a map that goes on, what its items have given so far."""
    if step.state.map_instances and not step.state.output:
        return [instance.output for instance in step.state.map_instances]
    return step.state.value()


def _of_attempt(attempt: AttemptTimeline) -> Document:
    """Describe an attempt.

    ``starts`` is more than 1 after redeliveries; ``end`` is a word of ``AttemptEnd``. The id is
    the step's, or that of an instance of a map, of which all attempts stand in one list.
    """
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
    """Write a time, or nothing if it is not known."""
    return None if ns is None else rfc3339(ns)


def _seconds(started_ns: int | None, ended_ns: int | None) -> float | None:
    """Return a duration, or nothing while one of its ends is missing."""
    if started_ns is None or ended_ns is None:
        return None
    return (ended_ns - started_ns) / NS
