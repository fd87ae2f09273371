"""What becomes of a step that has failed for good (contract 6.4). Pure.

In this order: its failure handler, the compensation of the steps that have completed, the end of
the run. Compensation goes backwards, one step at a time; what still goes when it begins is waited
for, and compensated, too, if it completes. (The DagNats engine compensates the last step first,
but the others in the order of the definition, and does not look at what still goes.)

A handler that several steps share runs once for each of them, one at a time. The DagNats engine
sends a second one under the same id, which the server drops: the run hangs.
"""

from collections.abc import Iterator

from trio_dagnats.local.engine.core.dispatch import dispatch
from trio_dagnats.local.engine.core.draft import Draft
from trio_dagnats.local.engine.core.ready import advance
from trio_dagnats.local.engine.core.state import Action, Kind
from trio_dagnats.wire.definitions.steps import WITH_TASK, StepDef
from trio_dagnats.wire.run import RunStatus, StepStatus

HELD = (
    Action.TASK_SLOT,
    Action.RATE_RETRY,
    Action.RETRY_BACKOFF,
    Action.RETRY_AFTER,
    Action.LOOP_DELAY,
)
"""Timers of steps of which no worker has anything in hand."""


def carry_on(draft: Draft, done: str) -> None:
    """Go on after a step has completed."""
    source = draft.handling.get(done)
    if source is not None and source not in draft.undone:
        _recover(draft, source)
        _handle_next(draft, done)
    if draft.trigger:
        _compensate(draft)
    else:
        advance(draft)


def fail(draft: Draft, step_id: str, error: str) -> None:
    """Fail a step for good, and do what is to be done then."""
    draft.let_go(step_id)
    draft.change(step_id, status=StepStatus.FAILED, error=error)
    step = draft.definition.step(step_id)
    if step_id in draft.definition.auxiliary:
        _end(draft, step_id, RunStatus.COMPENSATE_FAILED, f"{step_id!r} failed: {error}")
    elif draft.trigger:
        _compensate(draft)
    elif step.on_failure:
        _handle_next(draft, step.on_failure)
        advance(draft)  # it makes room for others (max_steps)
    elif any(_to_undo(draft)):
        _begin_compensation(draft, step_id)
    else:
        _end(draft, step_id, RunStatus.FAILED, error)


def _end(draft: Draft, step_id: str, status: RunStatus, error: str) -> None:
    draft.end(status, error)
    attempts = draft.steps[step_id].attempts
    letter = f"dlq:{draft.run.run_id}:{step_id}:{attempts}"
    draft.emit(Kind.DEAD_LETTER, letter, step_id=step_id, number=attempts)


def _handle_next(draft: Draft, handler: str) -> None:
    """Start a handler for the next step that waits for it, unless it runs."""
    if draft.is_going(handler):
        return
    for step in draft.definition.steps:
        if step.on_failure == handler and draft.steps[step.id].status is StepStatus.FAILED:
            _start_handler(draft, handler, step.id)
            return


def _recover(draft: Draft, step_id: str) -> None:
    draft.change(step_id, status=StepStatus.RECOVERED)
    for step in draft.definition.dependents[step_id]:
        if draft.steps[step.id].status is StepStatus.PENDING:
            draft.change(step.id, status=StepStatus.SKIPPED)


def _begin_compensation(draft: Draft, trigger: str) -> None:
    draft.trigger = trigger
    for step in draft.definition.steps:
        held = draft.waits_for(step.id, *HELD)
        if draft.is_going(step.id) and (step.type not in WITH_TASK or held):
            draft.cancel_step(step)
    _compensate(draft)


def _compensate(draft: Draft) -> None:
    """Undo the next step; end the run when there is nothing more to undo or to wait for."""
    last = draft.undone[-1] if draft.undone else ""
    if last and draft.is_going(draft.definition.step(last).compensate):
        return
    step = next(_to_undo(draft), None)
    if step is not None:
        draft.undone = (*draft.undone, step.id)
        _start_handler(draft, step.compensate, step.id)
    elif not any(draft.is_going(step_id) for step_id in draft.steps):
        error = draft.steps[draft.trigger].error
        draft.end(RunStatus.COMPENSATED, f"compensated: {draft.trigger!r} failed: {error}")


def _start_handler(draft: Draft, handler: str, source: str) -> None:
    """Send a handler's task; a second time as another attempt, whose ids are new."""
    again = handler in draft.handling
    number = draft.steps[handler].attempts + 1 if again else 0
    draft.handling[handler] = source
    draft.change(handler, status=StepStatus.QUEUED, output="", error="")
    tail = (number,) if again else ()
    msg_id = draft.id(handler, "queued", *tail)
    dispatch(draft, draft.definition.step(handler), msg_id, number=number)


def _to_undo(draft: Draft) -> Iterator[StepDef]:
    """Yield the steps that are still to be compensated, the last one first."""
    for step in reversed(_in_order(draft)):
        state = draft.steps[step.id]
        if step.compensate and state.status is StepStatus.COMPLETED and step.id not in draft.undone:
            yield step


def _in_order(draft: Draft) -> list[StepDef]:
    """Return the ordinary steps so that each comes after what it depends on."""
    found: dict[str, StepDef] = {}

    def add(step: StepDef) -> None:
        for other in step.depends_on:
            if other not in found:
                add(draft.definition.step(other))
        found[step.id] = step

    for step in draft.definition.steps:
        if step.id not in found and step.id not in draft.definition.auxiliary:
            add(step)
    return list(found.values())
