"""What an effect looks like on the wire: subject, id, headers and body, made from the run. Pure.

The keys and their order are the DagNats engine's (contract 2, 6; golden transcripts).

Called by the sender alone, with the state that was saved with the effect in its outbox. A second
rendering gives the same subject, id and bytes: no clock is looked at (times come from ``at_ns``
of the book) and no randomness is used (the nonces of a map's instances are hashes).

=====================  =======================================  =======================
kinds of effects       subject                                  who reads it
=====================  =======================================  =======================
TASK, MAP_TASKS        ``task.<task>.<run>``, with a group      workers
                       ``task.<task>.<group>.<run>``
TIMER                  ``sleep.<run>.<step or action>``         this engine, when it is due
DEAD_LETTER            ``dead.<task>.<run>.<step>``             people
PARENT_TOLD            ``history.<parent>``                     this engine, for the parent
CHILD_CANCELLED,       ``history.<that run>``                   this engine, for that run,
OTHER_CANCELLED                                                 and its workers
RUN_TIMED_OUT,         ``history.<run>``                        workers and clients: to the
RUN_SKIPPED                                                     core the run is over
SPAWN                  ``history.<run>``                        this engine, for the child
all other events       ``history.<run>``                        this engine, and whoever
                                                                looks at the run
=====================  =======================================  =======================

Kinds that are no messages (waiters, slots, turns, locks, approval tokens and notices) never get
here; the sender does them, ``sender.ASKED``. It calls :func:`timer` and :func:`approval` itself
where a message or a notice needs something that only the shell knows.

Bodies are put together in the order in which the DagNats engine has its keys, because recorded
transcripts are compared with them. That is why an input is written into the middle of an object.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import final

from pydantic_core import from_json

from trio_dagnats.local.engine.core.state import (
    ENDED,
    Action,
    Effect,
    Kind,
    RunState,
    instance_id,
)
from trio_dagnats.local.engine.core.values.inputs import input_of, read_items, resolve_input
from trio_dagnats.wire import events
from trio_dagnats.wire.definitions.steps import StepDef
from trio_dagnats.wire.events import EventType
from trio_dagnats.wire.names import history_subject, task_subject
from trio_dagnats.wire.text import compact, rfc3339

_RETRIES = frozenset({Action.RETRY_BACKOFF, Action.RETRY_AFTER})
"""Timers that the DagNats engine sends with all that it needs for the task (input, workflow). This
engine makes the task from the run when the timer fires and reads none of it.
"""
_BARE = frozenset({Action.SLEEP_COMPLETE, Action.WAIT_TIMEOUT, Action.APPROVAL_TIMEOUT})
"""Timers of steps that have no task."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message ready to be stored; ``step_id`` for tasks, ``last`` for the end of a run.

    ``step_id`` is what the sender looks for in the history, to find out whether a worker has
    taken a task whose id the server may have forgotten. ``last`` keeps the run's end behind what
    led to it.

    Attributes:
        subject: where it is published; its first part decides the stream.
        msg_id: ``Nats-Msg-Id``; the server drops a second one within the stream's window.
        body: the bytes.
        headers: more headers; only dead letters have some.
        step_id: the step or the instance of a map, for tasks only.
        last: stored after all others of the same transition.
    """

    subject: str
    msg_id: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    step_id: str = ""
    last: bool = False


def render(effect: Effect, state: RunState) -> Iterator[Outgoing]:
    """Write an effect of a state's own transition: one message, or one for each item of a map.

    Args:
        effect: one of the state's outbox.
        state: the state that has it there. Not a later one: the body is made from it.

    Raises:
        WireError: a stored output cannot be read; only a foreign hand can have written that.
    """
    match effect.kind:
        case Kind.TASK:
            yield _task(effect, state)
        case Kind.MAP_TASKS:
            yield from _map_tasks(effect, state)
        case Kind.TIMER:
            yield timer(effect, state)
        case Kind.DEAD_LETTER:
            yield _dead_letter(effect, state)
        case Kind.RUN_TIMED_OUT | Kind.CHILD_CANCELLED | Kind.RUN_SKIPPED | Kind.OTHER_CANCELLED:
            event = events.cancelled(effect.text or state.run.run_id, state.book.at_ns)
            yield Outgoing(subject=event.subject, msg_id=event.msg_id, body=event.body)
        case _:
            yield _event(effect, state)


_EVENTS = {
    Kind.STEP_QUEUED: EventType.STEP_QUEUED,
    Kind.SLEEP_STARTED: EventType.SLEEP_STARTED,
    Kind.SLEEP_COMPLETED: EventType.SLEEP_COMPLETED,
    Kind.STEP_TIMED_OUT: EventType.STEP_FAILED,
    Kind.SPAWN: EventType.WORKFLOW_SPAWN,
    Kind.WAIT_STARTED: EventType.WAIT_STARTED,
    Kind.WAIT_TIMED_OUT: EventType.WAIT_TIMEOUT,
    Kind.APPROVAL_ASKED: EventType.APPROVAL_REQUESTED,
    Kind.APPROVAL_EXPIRED: EventType.APPROVAL_EXPIRED,
    Kind.MATERIALIZED: EventType.PLANNER_MATERIALIZED,
}
"""The event that a kind is told by, for kinds that have only one. ``STEP_TIMED_OUT`` is the failure
that the DagNats engine publishes for a timeout: without a ``worker_id``, which tells workers
that it is the engine's word and not another worker's outcome.
"""


def _event(effect: Effect, state: RunState) -> Outgoing:
    """Write an event of a run's history, in the envelope that all of them share.

    The time is that of the transition. What a parent is told goes to the parent's history and names
    its step, not the child's.
    """
    run_id, step_id = state.run.run_id, effect.step_id
    if effect.kind is Kind.PARENT_TOLD:
        run_id, step_id = state.run.parent_run_id, state.run.parent_step_id
    body: dict[str, object] = {"type": _type(effect, state).value, "run_id": run_id}
    if step_id:
        body["step_id"] = step_id
    body["timestamp"] = rfc3339(state.book.at_ns)
    payload = _payload(effect, state)
    if payload:
        body["payload"] = payload
    if effect.number:
        body["attempt_number"] = effect.number
    return Outgoing(
        subject=history_subject(run_id),
        msg_id=effect.msg_id,
        body=compact(body),
        last=effect.kind is Kind.RUN_ENDED,
    )


def _type(effect: Effect, state: RunState) -> EventType:
    """Say by which event a kind is told, where that depends on how the run stands.

    A run's end is told by its status, and only the last transition of a run has that effect, so the
    status in the state is the final one.
    """
    if effect.kind is Kind.RUN_ENDED:
        return ENDED[state.run.status]
    if effect.kind is Kind.PARENT_TOLD:
        return EventType.CHILD_FAILED if effect.text else EventType.CHILD_COMPLETED
    return _EVENTS[effect.kind]


def _payload(effect: Effect, state: RunState) -> dict[str, object]:
    """Make what an event says beside its type; most say nothing more."""
    match effect.kind:
        case Kind.STEP_TIMED_OUT:
            return events.timeout_payload(state.book.definition.step(effect.step_id).timeout)
        case Kind.SPAWN:
            return _spawn(effect, state)
        case Kind.PARENT_TOLD:
            return {
                "child_run_id": state.run.run_id,
                "error": effect.text,
                "parent_step_id": state.run.parent_step_id,
            }
        case Kind.APPROVAL_ASKED:
            return approval(effect, state)
        case _:
            return {}


def _spawn(effect: Effect, state: RunState) -> dict[str, object]:
    """Make the payload of ``workflow.spawn``: the child to begin, and for which step of this run.

    The input travels in the event, as with the DagNats engine.
    """
    step = state.book.definition.step(effect.step_id)
    return {
        "child_run_id": effect.text,
        "child_workflow": step.child.workflow,
        "detach": step.child.detach,
        "input": _value(input_of(step.id, state)),
        "parent_step_id": step.id,
    }


def approval(effect: Effect, state: RunState) -> dict[str, object]:
    """Return what is asked of people.

    Three places say the same: the event ``approval.requested``, the notice on the approval's own
    core subject, and the stored token. This engine does not read it back: checking a token is up
    to whoever turns an answer into an event. ``expires_at`` is counted from the transition, as
    the step's timer is.
    """
    config = state.book.definition.step(effect.step_id).approval
    asked: dict[str, object] = {
        "token": effect.nonce,
        "run_id": state.run.run_id,
        "step_id": effect.step_id,
        "subject": config.subject,
    }
    if config.description:
        asked["description"] = config.description
    if config.metadata:
        asked["metadata"] = config.metadata
    return {**asked, "expires_at": rfc3339(state.book.at_ns + config.timeout)}


def _task(effect: Effect, state: RunState) -> Outgoing:
    """Write the task of a step, or of an instance of a map with limits."""
    step, _ = state.step_and_index(effect.step_id)
    return _task_message(effect, step, state, input_of(effect.step_id, state))


def _map_tasks(effect: Effect, state: RunState) -> Iterator[Outgoing]:
    """Write the tasks of a map without limits from one effect; ``number`` says how many there are.

    Each nonce is made from the map's own and the index. A fresh one for each would have to be
    stored with the run, or would differ when the tasks are sent again.
    """
    step = state.book.definition.step(effect.step_id)
    items = read_items(resolve_input(step, state.run)) or []
    for index, item in enumerate(items[: effect.number]):
        name = instance_id(step.id, index)
        nonce = hashlib.sha256(f"{effect.nonce}.{index}".encode()).hexdigest()[:32]
        msg_id = f"{state.run.run_id}.{name}.queued"
        # Not validated: a map may have thousands of items, and these fields are right already.
        one = Effect.model_construct(kind=Kind.TASK, msg_id=msg_id, step_id=name, nonce=nonce)
        yield _task_message(one, step, state, compact(item))


def _task_message(effect: Effect, step: StepDef, state: RunState, given: bytes) -> Outgoing:
    """Write a task as workers read it (contract 2).

    Keys without a meaning are left out, as Go does: no ``iteration`` in the first one, no
    ``attempt`` in a first try. A retry has all that the first task had, its group and iteration
    included: the DagNats engine loses these (contract H11, H12).
    """
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
        step_id=effect.step_id,
    )


def timer(effect: Effect, state: RunState) -> Outgoing:
    """Write a timer's message.

    The server delivers it at once; the engine hands it back with what is left of
    ``duration_ms``, and again if it was away meanwhile. The subject names a step, or the action
    where it is the run's own. Of the body this engine reads ``run_id`` and ``duration_ms`` only:
    which timer it is says the id.

    Args:
        effect: a timer, or a turn under a rate limit with ``duration_ms`` filled in.
        state: the run.
    """
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
    # A timer of the run itself has no step, and sleeps, waits and approvals have no task.
    if effect.step_id and effect.action not in _BARE:
        fields["task_type"] = state.step_and_index(effect.step_id)[0].task
        if effect.action in _RETRIES:
            given = input_of(effect.step_id, state)
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
    """Write what is kept of a run that has failed: the task made once more, and why in the headers.

    The body is a task message, because a replay publishes it to ``Task-Subject`` as it is. A replay
    does not revive the run (contract 6.8). The delivery count is not known to the engine, so it is
    1.
    """
    step = state.book.definition.step(effect.step_id)
    given = input_of(step.id, state)
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


def _value(raw: bytes) -> object:
    """Read JSON; nothing is ``null``."""
    return from_json(raw) if raw else None


def _with_input(fields: dict[str, object], given: bytes, rest: dict[str, object]) -> bytes:
    """Write an object with an input's JSON, as it is, in the middle; empty leaves it out.

    The input is not parsed and written again: it may be large, and its bytes are the worker's
    own.
    """
    parts = [compact(fields)[1:-1]]
    if given:
        parts.append(b'"input":' + given)
    if rest:
        parts.append(compact(rest)[1:-1])
    return b"{%b}" % b",".join(parts)
