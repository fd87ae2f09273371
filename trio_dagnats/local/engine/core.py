"""The core: a run and an event give a run and its effects. No I/O, no clock, no randomness."""

from collections.abc import Callable
from typing import final

from pydantic import BaseModel, ConfigDict

from trio_dagnats.local.engine import ready, steps
from trio_dagnats.local.engine.draft import Draft
from trio_dagnats.local.engine.inputs import split_instance
from trio_dagnats.local.engine.state import Action, Book, Kind, RunState, Timer
from trio_dagnats.wire.events import EventType, HistoryEvent
from trio_dagnats.wire.run import RunStatus, StepState, StepStatus, WorkflowRun
from trio_dagnats.wire.text import rfc3339
from trio_dagnats.wire.workflow import WorkflowDef

Nonce = Callable[[], str]

HANDLED = frozenset(
    {
        EventType.WORKFLOW_STARTED,
        EventType.WORKFLOW_CANCELLED,
        EventType.STEP_STARTED,
        EventType.STEP_COMPLETED,
        EventType.STEP_FAILED,
        EventType.STEP_CONTINUE,
        EventType.SLEEP_COMPLETED,
    }
)
"""Types that change a run. ``step.queued`` is only announced: its attempt is counted at once."""
REFUSED = "<start>"
"""The step of a run that could not start."""
_OPEN = frozenset({StepStatus.PENDING, StepStatus.QUEUED, StepStatus.RUNNING})


@final
class Applied(BaseModel):
    """An event with its place in the history: ``sequence``, message id and time of storing."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    event: HistoryEvent
    sequence: int
    msg_id: str = ""
    time_ns: int


def start(definition: WorkflowDef, given: object, what: Applied, nonce: Nonce) -> RunState:
    """Begin a run with its input, None for none."""
    draft = Draft(_new(definition, given, what), what.time_ns, nonce)
    if definition.timeout:
        timer = draft.id(Action.RUN_TIMEOUT.value)
        # The DagNats engine looks at a deadline only when an event arrives (contract H27).
        draft.start_timer(timer, Action.RUN_TIMEOUT, definition.timeout)
    ready.advance(draft)
    return draft.done(applied=what.sequence, cause=str(what.sequence))


def refuse(definition: WorkflowDef, why: str, what: Applied, nonce: Nonce) -> RunState:
    """Store a run that cannot start as failed."""
    draft = Draft(_new(definition, None, what), what.time_ns, nonce)
    draft.steps[REFUSED] = StepState()
    draft.fail_step(REFUSED, why)
    return draft.done(applied=what.sequence, cause=str(what.sequence))


def apply(state: RunState, what: Applied, nonce: Nonce) -> RunState:
    """Apply an event to a run. One that is applied already, or comes too late, changes nothing."""
    if what.sequence <= state.book.applied or state.run.status.is_terminal:
        return state
    draft = Draft(state, what.time_ns, nonce)
    _take(draft, what)
    return draft.done(applied=what.sequence, cause=str(what.sequence))


def fire(state: RunState, timer_id: str, now_ns: int, nonce: Nonce) -> RunState:
    """Let a timer do what it is for. One that does not run (any more) changes nothing."""
    timer = state.book.timers.get(timer_id)
    if timer is None or state.run.status.is_terminal:
        return state
    draft = Draft(state, now_ns, nonce)
    del draft.timers[timer_id]
    _fire(draft, timer, timer_id)
    return draft.done(applied=state.book.applied, cause=timer_id)


def overflow(state: RunState, what: Applied, text: str, nonce: Nonce) -> RunState:
    """End a run whose snapshot has become too large to be stored.

    The DagNats engine leaves such a step running for ever (contract H29).
    """
    draft = Draft(state, what.time_ns, nonce)
    instance = split_instance(what.event.step_id)
    step_id = instance[0] if instance else what.event.step_id
    draft.fail_step(step_id if step_id in draft.steps else next(iter(draft.steps)), text)
    return draft.done(applied=what.sequence, cause=str(what.sequence))


def _new(definition: WorkflowDef, given: object, what: Applied) -> RunState:
    deadline = rfc3339(what.time_ns + definition.timeout) if definition.timeout else ""
    run = WorkflowRun(
        run_id=what.event.run_id,
        workflow_id=definition.name,
        status=RunStatus.RUNNING,
        steps={step.id: StepState() for step in definition.steps},
        input=given,
        created_at=rfc3339(what.time_ns),
        deadline=deadline,
        root_run_id=what.event.run_id,
    )
    return RunState(run=run, book=Book(definition=definition))


def _take(draft: Draft, what: Applied) -> None:
    event = what.event
    match event.type:
        case EventType.STEP_STARTED:
            steps.started(draft, event)
        case EventType.STEP_COMPLETED:
            steps.completed(draft, event)
        case EventType.STEP_FAILED:
            steps.failed(draft, event)
        case EventType.STEP_CONTINUE:
            steps.continued(draft, event, what.msg_id)
        case EventType.SLEEP_COMPLETED:
            steps.slept(draft, event)
        case EventType.WORKFLOW_CANCELLED:
            _cancel(draft)
        case _:  # a second workflow.started, or what only others read
            pass


def _cancel(draft: Draft) -> None:
    for step_id, state in draft.steps.items():
        if state.status in _OPEN:
            draft.change(step_id, status=StepStatus.CANCELLED)
    draft.end(RunStatus.CANCELLED)


def _fire(draft: Draft, timer: Timer, timer_id: str) -> None:
    step_id = timer.step_id
    match timer.action:
        case Action.SLEEP_COMPLETE:
            draft.emit(
                Kind.SLEEP_COMPLETED, draft.id(step_id, "step.sleep.completed"), step_id=step_id
            )
        case Action.RETRY_BACKOFF | Action.RETRY_AFTER:
            # Group, iteration and capabilities stay: the DagNats engine loses them (H11, H12).
            draft.dispatch(draft.definition.step(step_id), timer_id, number=timer.number + 1)
        case Action.LOOP_DELAY:
            iteration = draft.steps[step_id].iterations
            draft.dispatch(draft.definition.step(step_id), draft.id(step_id, "continue", iteration))
        case Action.STEP_TIMEOUT:
            msg_id = draft.id(step_id, "step.failed", timer_id.rpartition("step_timeout.")[2])
            draft.emit(Kind.STEP_TIMED_OUT, msg_id, step_id=step_id, number=timer.number)
        case Action.RUN_TIMEOUT:
            draft.emit(Kind.RUN_TIMED_OUT, draft.id("workflow.cancelled"))
