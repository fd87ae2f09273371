"""What ends the steps that the engine does itself: sleeps, waits, approvals, children. Pure.

Each of these steps was begun by ``ready`` and is ended by an event that the engine, the
correlator or a person has stored on the run's history. The rules here ask first whether the step
is still going, and (but for :func:`slept`) whether it is of the type that such an event ends:
anybody may publish such an event for a step that a worker does, and that must not complete it.

The first answer counts. A timeout and an answer that cross are two events in the history, and
whichever was stored first ends the step; the other finds it over.
"""

from pydantic import BaseModel, ConfigDict, ValidationError

from trio_dagnats.local.engine.core.draft import Draft
from trio_dagnats.local.engine.core.recovery import carry_on
from trio_dagnats.local.engine.core.state import Kind
from trio_dagnats.wire.definitions.steps import StepType
from trio_dagnats.wire.events import EventType, HistoryEvent
from trio_dagnats.wire.text import compact


class ChildEnd(BaseModel):
    """What ``workflow.child.*`` says, and what the shell adds: the child's output.

    ``output`` is not on the wire, where the key does not exist: the shell looks at the child's
    snapshot and puts it in before the rule sees the event, so that rules stay without I/O.
    """

    model_config = ConfigDict(extra="ignore")

    child_run_id: str
    error: str = ""
    output: object = None


def slept(draft: Draft, event: HistoryEvent) -> None:
    """Take ``step.sleep.completed``: the sleep is over.

    A second event, of a timer that was delivered twice, finds the step completed.
    """
    if draft.is_going(event.step_id):
        _complete(draft, event.step_id, b"")


def waited(draft: Draft, event: HistoryEvent) -> None:
    """Take ``step.wait.matched`` or ``step.wait.timeout``: the event came, or did not.

    The waiter is taken back in both cases, as the correlator would go on matching events for it.
    A timeout is no failure: the step completes with ``{"timeout":true}`` and its dependents
    decide.
    """
    if _does(draft, event.step_id, StepType.WAIT_FOR_EVENT):
        late = event.type == EventType.WAIT_TIMEOUT
        draft.emit(Kind.WAITER_GONE, draft.id(event.step_id, "waiter"), step_id=event.step_id)
        _complete(draft, event.step_id, compact({"timeout": True}) if late else event.payload)


def answered(draft: Draft, event: HistoryEvent) -> None:
    """Take the answer to an approval, or that there was none.

    A grant completes with the approver's payload. A rejection, or silence until the timeout,
    fails the run: without a retry, without the step's failure handler, and without compensation.
    """
    if not _does(draft, event.step_id, StepType.APPROVAL):
        return
    if event.type == EventType.APPROVAL_GRANTED:
        draft.emit(Kind.APPROVAL_GONE, draft.id(event.step_id, "token"), step_id=event.step_id)
        _complete(draft, event.step_id, event.payload)
    elif event.type == EventType.APPROVAL_REJECTED:
        reason = event.payload.decode(errors="replace").strip('"')
        draft.fail_step(event.step_id, reason or "approval rejected")
    else:
        draft.fail_step(event.step_id, "approval timed out")


def child_ended(draft: Draft, event: HistoryEvent) -> None:
    """Take the end of a sub-workflow's run; its failure fails this run at once (contract 10.3).

    The child's id is compared, because anybody may publish such an event. A payload that cannot
    be read is ignored: it is nobody's proof of an end.
    """
    try:
        end = ChildEnd.model_validate_json(event.payload)
    except ValidationError:
        return
    if not _does(draft, event.step_id, StepType.SUB_WORKFLOW):
        return
    if draft.steps[event.step_id].child_run_id != end.child_run_id:
        return
    if event.type == EventType.CHILD_COMPLETED:
        _complete(draft, event.step_id, b"" if end.output is None else compact(end.output))
    else:
        draft.fail_step(event.step_id, f"child workflow failed: {end.error}")


def _does(draft: Draft, step_id: str, kind: StepType) -> bool:
    """Say whether a step is going and of the type that the event is for."""
    return draft.is_going(step_id) and draft.definition.step(step_id).type is kind


def _complete(draft: Draft, step_id: str, output: bytes) -> None:
    """Complete a step and let those go on that waited for it."""
    draft.complete(step_id, output)
    carry_on(draft, step_id)
