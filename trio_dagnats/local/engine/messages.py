"""What an effect looks like on the wire: subject, id, headers and body, made from the run. Pure.

The keys and their order are the DagNats engine's (contract 2, 6; golden transcripts).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

from trio_dagnats.local.engine.inputs import instance_id, read_items, resolve_input, split_instance
from trio_dagnats.local.engine.state import ENDED, Action, Effect, Kind, RunState
from trio_dagnats.wire import events
from trio_dagnats.wire.events import EventType, FailureType
from trio_dagnats.wire.names import history_subject, task_subject
from trio_dagnats.wire.steps import StepDef
from trio_dagnats.wire.text import compact, rfc3339

_RETRIES = frozenset({Action.RETRY_BACKOFF, Action.RETRY_AFTER})


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message ready to be stored."""

    subject: str
    msg_id: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def render(effect: Effect, state: RunState) -> Outgoing:
    """Write an effect of a state's own transition."""
    match effect.kind:
        case Kind.TASK:
            return _task(effect, state)
        case Kind.TIMER:
            return _timer(effect, state)
        case Kind.DEAD_LETTER:
            return _dead_letter(effect, state)
        case Kind.RUN_TIMED_OUT:
            event = events.cancelled(state.run.run_id, state.book.at_ns)
            return Outgoing(subject=event.subject, msg_id=event.msg_id, body=event.body)
        case _:
            return _event(effect, state)


def _event(effect: Effect, state: RunState) -> Outgoing:
    kinds = {
        Kind.STEP_QUEUED: EventType.STEP_QUEUED,
        Kind.SLEEP_STARTED: EventType.SLEEP_STARTED,
        Kind.SLEEP_COMPLETED: EventType.SLEEP_COMPLETED,
        Kind.STEP_TIMED_OUT: EventType.STEP_FAILED,
        Kind.RUN_ENDED: ENDED.get(state.run.status, EventType.WORKFLOW_FAILED),
    }
    run_id = state.run.run_id
    body: dict[str, object] = {"type": kinds[effect.kind].value, "run_id": run_id}
    if effect.step_id:
        body["step_id"] = effect.step_id
    body["timestamp"] = rfc3339(state.book.at_ns)
    if effect.kind is Kind.STEP_TIMED_OUT:
        limit = state.book.definition.step(effect.step_id).timeout / 1e9
        error = f"step timeout exceeded ({limit:g}s)"
        body["payload"] = {"error": error, "failure_type": FailureType.RETRIABLE.value}
    if effect.number:
        body["attempt_number"] = effect.number
    return Outgoing(subject=history_subject(run_id), msg_id=effect.msg_id, body=compact(body))


def _task(effect: Effect, state: RunState) -> Outgoing:
    step, given = _step_and_input(effect.step_id, state)
    run_id = state.run.run_id
    fields: dict[str, object] = {
        "task_id": f"{run_id}.{effect.step_id}",
        "run_id": run_id,
        "step_id": effect.step_id,
    }
    iteration = state.run.steps[step.id].iterations
    if iteration:
        fields["iteration"] = iteration
    if effect.number:
        fields["attempt"] = effect.number
    rest: dict[str, object] = {}
    if step.metadata:  # the DagNats engine loses it (contract H1)
        rest["metadata"] = step.metadata
    if step.required_capabilities:
        rest["required_capabilities"] = list(step.required_capabilities)
    rest |= {"dispatch_nonce": effect.nonce, "workflow_name": state.run.workflow_id}
    return Outgoing(
        subject=task_subject(step.task, run_id, step.worker_group),
        msg_id=effect.msg_id,
        body=_with_input(fields, given, rest),
    )


def _timer(effect: Effect, state: RunState) -> Outgoing:
    assert effect.action is not None
    run_id = state.run.run_id
    fields: dict[str, object] = {
        "action": effect.action.value,
        "run_id": run_id,
        "step_id": effect.step_id or effect.action.value,
        "duration_ms": effect.duration_ms,
    }
    given = b""
    rest: dict[str, object] = {}
    if effect.step_id and effect.action is not Action.SLEEP_COMPLETE:
        step, resolved = _step_and_input(effect.step_id, state)
        fields["task_type"] = step.task
        if effect.action in _RETRIES:
            given = resolved
    if effect.number:
        rest["attempt"] = effect.number
    if effect.action in _RETRIES:
        rest["workflow_name"] = state.run.workflow_id
    return Outgoing(
        subject=f"sleep.{run_id}.{fields['step_id']}",
        msg_id=effect.msg_id,
        body=_with_input(fields, given, rest),
    )


def _dead_letter(effect: Effect, state: RunState) -> Outgoing:
    step, given = _step_and_input(effect.step_id, state)
    run_id = state.run.run_id
    fields: dict[str, object] = {
        "task_id": f"{run_id}.{step.id}",
        "run_id": run_id,
        "step_id": step.id,
    }
    if effect.number:
        fields["attempt"] = effect.number
    prefix = "Dagnats-Dlq"
    headers = {
        f"{prefix}-Run-Id": run_id,
        f"{prefix}-Step-Id": step.id,
        f"{prefix}-Task": step.task,
        f"{prefix}-Error": state.run.steps[step.id].error,
        f"{prefix}-Attempts": str(effect.number),
        f"{prefix}-Delivery-Count": "1",
        f"{prefix}-Consumer": "TASK_QUEUES",
        f"{prefix}-Task-Subject": task_subject(step.task, run_id, step.worker_group),
    }
    return Outgoing(
        subject=f"dead.{step.task}.{run_id}.{step.id}",
        msg_id=effect.msg_id,
        body=_with_input(fields, given or b"null", {"workflow_name": state.run.workflow_id}),
        headers=headers,
    )


def _step_and_input(step_id: str, state: RunState) -> tuple[StepDef, bytes]:
    """Return the step that a task, a timer or a dead letter is about, and its input."""
    instance = split_instance(step_id)
    if instance is None:
        step = state.book.definition.step(step_id)
        return step, resolve_input(step, state.run)
    name, index = instance
    step = state.book.definition.step(name)
    items = read_items(resolve_input(step, state.run))
    assert items is not None  # the map has begun
    assert instance_id(name, index) == step_id
    return step, compact(items[index])


def _with_input(fields: dict[str, object], given: bytes, rest: dict[str, object]) -> bytes:
    """Write an object with an input's JSON, as it is, in the middle; empty leaves it out."""
    parts = [compact(fields)[1:-1]]
    if given:
        parts.append(b'"input":' + given)
    if rest:
        parts.append(compact(rest)[1:-1])
    return b"{%b}" % b",".join(parts)
