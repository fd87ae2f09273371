"""What becomes of a step that has failed for good (contract 6.4). Pure.

In this order: its failure handler, the compensation of the steps that have completed, the end of
the run. Compensation goes backwards, one step at a time; what still goes when it begins is waited
for, and compensated, too, if it completes. (The DagNats engine compensates the last step first,
but the others in the order of the definition, and does not look at what still goes.)

A handler that several steps share runs once for each of them, one at a time. The DagNats engine
sends a second one under the same id, which the server drops: the run hangs.

::

    a step fails for good
      ├─ it is a handler itself ──────────► the run ends, compensate_failed
      ├─ the run undoes itself already ───► go on undoing
      ├─ it has on_failure ───────────────► that handler's task
      │                                       └─ completed: the step is recovered, its pending
      │                                          dependents are skipped, the run goes on
      ├─ completed steps can be undone ───► cancel what no worker has, wait for the rest, undo the
      │                                     last one, then the one before ... ► compensated
      └─ none of these ───────────────────► the run ends, failed

Two entries of the book carry this over the events in between: ``handling`` says for which step a
handler was started last, ``undone`` which steps' compensation has begun. A handler whose source is
in ``undone`` is a compensation, otherwise it handles a failure.
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
"""Timers of steps of which no worker has anything in hand.

Cancelling such a step loses no work; one that a worker runs is left to end.
"""


def carry_on(draft: Draft, done: str) -> None:
    """Go on after a step has completed.

    Called after every completion, of ordinary steps and of handlers, once its output is stored
    in the draft. While a run undoes itself nothing new begins; a step that completes then only
    adds to what is to be undone.
    """
    source = draft.handling.get(done)
    if source is not None and source not in draft.undone:
        _recover(draft, source)
        _handle_next(draft, done)
    if draft.trigger:
        _compensate(draft)
    else:
        advance(draft)


def fail(draft: Draft, step_id: str, error: str) -> None:
    """Fail a step for good, and do what is to be done then.

    Retries have been tried before this is called. ``error`` becomes the step's; a parent run is
    told it, too, for a handler with its id in front.
    """
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
    """End the run with a dead letter for the step that ended it.

    The letter's id has the number of attempts, and one that is sent again after a crash is known
    by it: the stream knows ids for a day.
    """
    draft.end(status, error)
    attempts = draft.steps[step_id].attempts
    letter = f"dlq:{draft.run.run_id}:{step_id}:{attempts}"
    draft.emit(Kind.DEAD_LETTER, letter, step_id=step_id, number=attempts)


def _handle_next(draft: Draft, handler: str) -> None:
    """Start a handler for the next step that waits for it, unless it runs.

    The book has no line of who waits for a handler: a step that is ``failed`` and names it *is*
    who waits. The first one in the order of the definition comes next.
    """
    if draft.is_going(handler):
        return
    for step in draft.definition.steps:
        if step.on_failure == handler and draft.steps[step.id].status is StepStatus.FAILED:
            _start_handler(draft, handler, step.id)
            return


def _recover(draft: Draft, step_id: str) -> None:
    """Take a step's failure back; its direct dependents have lost their input and are skipped.

    Only the direct ones: a skipped step counts as done, so those behind them go on.
    """
    draft.change(step_id, status=StepStatus.RECOVERED)
    for step in draft.definition.dependents[step_id]:
        if draft.steps[step.id].status is StepStatus.PENDING:
            draft.change(step.id, status=StepStatus.SKIPPED)


def _begin_compensation(draft: Draft, trigger: str) -> None:
    """Remember whose failure it was, and cancel what no worker has in hand.

    A step that a worker has is waited for in place of being cancelled, because its side effects
    happen anyway; if it completes, it can be undone like the others.
    """
    draft.trigger = trigger
    for step in draft.definition.steps:
        held = draft.waits_for(step.id, *HELD)
        if draft.is_going(step.id) and (step.type not in WITH_TASK or held):
            draft.cancel_step(step)
    _compensate(draft)


def _compensate(draft: Draft) -> None:
    """Undo the next step; end the run when there is nothing more to undo or to wait for.

    It begins with the last one that was begun: while its handler goes on no other is started, so
    that steps are undone one at a time, backwards. The end waits for steps that are still going,
    because one of them may complete and have to be undone.
    """
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
    """Send a handler's task; a second time as another attempt, whose ids are new.

    A handler begins with attempt 0, as with the DagNats engine; what is special the second time
    is that its ids have been used. ``handling`` is set first, for a handler's input is made from
    it.
    """
    again = handler in draft.handling
    number = draft.steps[handler].attempts + 1 if again else 0
    draft.handling[handler] = source
    draft.change(handler, status=StepStatus.QUEUED, output="", error="")
    tail = (number,) if again else ()
    msg_id = draft.id(handler, "queued", *tail)
    dispatch(draft, draft.definition.step(handler), msg_id, number=number)


def _to_undo(draft: Draft) -> Iterator[StepDef]:
    """Yield the steps that are still to be compensated, the last one first.

    A generator, because mostly only the first one is wanted, or whether there is one.
    """
    for step in reversed(_in_order(draft)):
        state = draft.steps[step.id]
        if step.compensate and state.status is StepStatus.COMPLETED and step.id not in draft.undone:
            yield step


def _in_order(draft: Draft) -> list[StepDef]:
    """Return the ordinary steps so that each comes after what it depends on.

    Within what dependencies leave open it is the order of the definition, not the order in which
    steps have happened to end: that would make compensation differ from run to run.
    """
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
