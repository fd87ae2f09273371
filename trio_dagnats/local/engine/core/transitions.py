"""The core: a run and an event give a run and its effects. No I/O, no clock, no randomness.

The one entrance from the shell. It has five functions, and each returns a new state and leaves the
old one alone::

    start     a run begins                    (conductor, for workflow.started and workflow.spawn)
    apply     an event of its history         (conductor, for everything else)
    fire      one of its timers is due        (conductor, for messages of sleep.>)
    join      two transitions become one      (conductor: many events, one write)
    overflow  the new state cannot be stored  (conductor, after TooLarge)

The states of a run, as the engine writes them::

    from       to                  when
    ---------  ------------------  ----------------------------------------------------------
    (none)     running             it begins, and nothing limits its workflow
    (none)     pending             its workflow has ``max_runs``: it asks for a slot first
    (none)     failed              its input or its workflow cannot be used
    (none)     cancelled           a singleton in the mode ``skip`` whose other run goes on
    pending    running             its slot has come
    pending    cancelled           ``workflow.cancelled``; it gives its place in the line up
    running    completed           all ordinary steps are completed, skipped or recovered
    running    failed              a step failed for good, and nobody handles or undoes that
    running    compensated         the same, and all that had completed has been undone
    running    compensate_failed   a handler of a failure or a compensation failed for good
    running    cancelled           ``workflow.cancelled``, or the run's own timeout

A run may take several of these ways in one transition (all its steps are skipped, say). No state
leads out of an end: whatever comes then is ignored by :func:`apply` and :func:`fire`, unlike in the
DagNats engine (contract H14, H19).
"""

from collections.abc import Callable
from typing import final

from pydantic import BaseModel, ConfigDict

from trio_dagnats.local.engine.core import ready, steps, waiting
from trio_dagnats.local.engine.core.dispatch import dispatch, go_on
from trio_dagnats.local.engine.core.draft import TASKS, Draft
from trio_dagnats.local.engine.core.state import (
    Action,
    EngineRecord,
    Kind,
    RunState,
    Timer,
    split_instance,
)
from trio_dagnats.local.engine.core.values.paths import offset_of
from trio_dagnats.wire.definitions.workflow import WorkflowDef
from trio_dagnats.wire.events import EventType, HistoryEvent
from trio_dagnats.wire.run import RunStatus, StepState, StepStatus, WorkflowRun
from trio_dagnats.wire.text import rfc3339

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
        EventType.WAIT_MATCHED,
        EventType.WAIT_TIMEOUT,
        EventType.APPROVAL_GRANTED,
        EventType.APPROVAL_REJECTED,
        EventType.APPROVAL_EXPIRED,
        EventType.WORKFLOW_SPAWN,
        EventType.CHILD_COMPLETED,
        EventType.CHILD_FAILED,
    }
)
"""Types that change a run. ``step.queued`` is only announced: its attempt is counted at once.

What is not here is acknowledged by the shell without loading the run. ``workflow.completed`` and
``workflow.failed`` are missing because the engine writes them itself, after the snapshot that they
tell of; ``step.sleep.started`` and its like are for readers of the history only.
"""
TIMEOUTS = frozenset({Action.STEP_TIMEOUT, Action.RUN_TIMEOUT})
"""Timers that :func:`_catch_up` lets go first. Of the others, waits and approvals are decided by
the order of events in the history; a sleep or a retry that is overdue just happens a little later.
"""
REFUSED = "<start>"
"""The step of a run that could not start."""
SKIPPED = "<admission-skip>"
"""The step of a run that another one of its singleton has kept from starting."""


@final
class Applied(BaseModel):
    """An event with its place in the history: ``sequence``, message id and time of storing.

    ``msg_id`` is needed for ``step.continue`` only, whose iteration stands in its id and nowhere
    else. ``time_ns`` is the server's clock: rules never look at the engine's own, so replaying a
    history after a crash decides as the first engine would have.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    event: HistoryEvent
    sequence: int
    msg_id: str = ""
    time_ns: int


@final
class Start(BaseModel):
    """A run to begin.

    Attributes:
        definition: its workflow.
        given: its input, None for none.
        problem: why it cannot start, empty if it can.
        parent_run_id: the run that waits for its end, empty if none does.
        parent_step_id: the step of that run.
        root_run_id: the run at the top, empty if it is itself.
        lock: the singleton's lock, empty if the workflow is none.
        in_the_way: the run that had the lock when this one came, empty if none had.
    """

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    definition: WorkflowDef
    given: object = None
    problem: str = ""
    parent_run_id: str = ""
    parent_step_id: str = ""
    root_run_id: str = ""
    lock: str = ""
    in_the_way: str = ""


def start(begun: Start, what: Applied, nonce: Nonce) -> RunState:
    """Begin a run: at once, or when others of its workflow have ended (``max_runs``).

    The order of the questions is the order of precedence: an input that cannot be used fails the
    run even if its singleton is taken; a singleton that is taken counts before ``max_runs``. With
    ``mode: cancel`` the run in the way is told to end and this one does not wait for that: the lock
    is its own already.

    A run that waits for a slot is ``pending`` and has none of its steps queued. Its deadline does
    not run yet, and events that would cancel it (``cancel_on``) are not listened for.

    Args:
        begun: what the shell has found out: definition, input, parent, lock.
        what: the event that begins it; its time becomes ``created_at``.
        nonce: makes dispatch nonces and ids of children.

    Returns:
        The first state of the run. It always differs from nothing, so it is always saved.
    """
    draft = Draft(_new(begun, what), what.time_ns, nonce)
    limits, single = begun.definition.concurrency, begun.definition.singleton
    if begun.in_the_way and single is not None and single.mode == "cancel":
        msg_id = f"{begun.in_the_way}.workflow.cancelled"
        draft.emit(Kind.OTHER_CANCELLED, msg_id, text=begun.in_the_way)
    if begun.problem:
        draft.steps[REFUSED] = StepState()
        draft.fail_step(REFUSED, begun.problem)
    elif begun.in_the_way and single is not None and single.mode == "skip":
        _skip(draft, begun.in_the_way)
    elif limits is not None and limits.max_runs:
        slot = draft.id(Action.RUN_SLOT.value)
        draft.take_slot(slot)
        draft.timers[slot] = Timer(action=Action.RUN_SLOT)
        draft.emit(Kind.SLOT_WANTED, slot, action=Action.RUN_SLOT)
    else:
        draft.begin()
        ready.advance(draft)
    return draft.done(applied=what.sequence, cause=str(what.sequence))


def apply(state: RunState, what: Applied, nonce: Nonce) -> RunState:
    """Apply an event to a run. One that is applied already, or comes too late, changes nothing.

    An event that changes nothing returns the very state that came in (``is``), and then nothing is
    written for it: ``applied`` may therefore lag behind the last event that was looked at, never
    run ahead of it. Looking at such an event once more does no harm, for it changes nothing again.
    """
    if what.sequence <= state.book.applied or state.run.status.is_terminal:
        return state
    draft = Draft(state, what.time_ns, nonce)
    _catch_up(draft)
    if not draft.is_over:
        _take(draft, what)
    return draft.done(applied=what.sequence, cause=str(what.sequence))


def fire(state: RunState, timer_id: str, now_ns: int, nonce: Nonce) -> RunState:
    """Let a timer do what it is for. One that does not run (any more) changes nothing.

    The timer leaves the run first, so that its message does nothing when the server delivers it a
    second time. ``applied`` stays: a timer has no place in the history. Its id goes into ``causes``
    instead, which is how the shell recognises it after a crash.

    Sleeps, waits and approvals only write an event here, and that event ends the step when it comes
    back: the history then tells why a step ended. A timeout of a step or of the run changes the
    state at once, for :func:`_catch_up` needs it done before the event that it holds in its hand.
    """
    timer = state.book.timers.get(timer_id)
    if timer is None or state.run.status.is_terminal:
        return state
    draft = Draft(state, now_ns, nonce)
    del draft.timers[timer_id]
    _fire(draft, timer, timer_id)
    return draft.done(applied=state.book.applied, cause=timer_id)


def join(first: RunState, then: RunState) -> RunState:
    """Return the second state as if both transitions had been one.

    The shell applies all events of a run that have come meanwhile and saves once; this keeps their
    effects and causes together. ``first`` must not have been saved: what a saved state has to send
    is sent before the next event is looked at. Effects are rendered from the joined state, tasks
    last.
    """
    effects = (*first.book.outbox, *then.book.outbox)
    outbox = tuple(sorted(effects, key=lambda effect: effect.kind in TASKS))
    causes = (*first.book.causes, *then.book.causes)
    book = then.book.model_copy(update={"outbox": outbox, "causes": causes})
    return RunState.model_construct(run=then.run, book=book)


def overflow(state: RunState, what: Applied, text: str, nonce: Nonce) -> RunState:
    """End a run whose snapshot has become too large to be stored.

    The DagNats engine leaves such a step running for ever (contract H29).

    Called with the last state that could be stored, not with the one that could not: the step that
    would have made it too large fails in its place, and so does the run. Which step that was is
    read from the event; for one that names none it is the workflow's first.
    """
    draft = Draft(state, what.time_ns, nonce)
    instance = split_instance(what.event.step_id)
    step_id = instance[0] if instance else what.event.step_id
    draft.fail_step(step_id if step_id in draft.steps else next(iter(draft.steps)), text)
    return draft.done(applied=what.sequence, cause=str(what.sequence))


def _skip(draft: Draft, by: str) -> None:
    """End a run of a singleton whose other run goes on.

    The DagNats engine tells nobody; whoever waits for the run would have to poll.
    """
    reason = f"singleton skip: run already active: {by}"
    draft.steps = {SKIPPED: StepState(status=StepStatus.FAILED, error=reason)}
    draft.run = draft.run.model_copy(update={"singleton_key": ""})
    draft.end(RunStatus.CANCELLED, reason)
    draft.emit(Kind.RUN_SKIPPED, draft.id("workflow.cancelled"))


def _new(begun: Start, what: Applied) -> RunState:
    """Build the snapshot of a run of which nothing has happened yet: all steps pending, no timers.

    The book keeps the definition as it is now, so that a later change of the workflow does not
    touch runs that go on (contract H28).
    """
    definition = begun.definition
    run = WorkflowRun(
        run_id=what.event.run_id,
        workflow_id=definition.name,
        status=RunStatus.PENDING,
        steps={step.id: StepState() for step in definition.steps},
        input=begun.given,
        created_at=rfc3339(what.time_ns),
        root_run_id=begun.root_run_id or what.event.run_id,
        parent_run_id=begun.parent_run_id,
        parent_step_id=begun.parent_step_id,
        priority_offset=offset_of(definition.priority, begun.given),
        singleton_key=begun.lock,
    )
    return RunState(run=run, book=EngineRecord(definition=definition))


def _take(draft: Draft, what: Applied) -> None:
    """Hand an event to the rule for its type.

    Every rule checks for itself that its step is still going: late, doubled and invented events are
    the ordinary case here, because anybody may publish on ``history.>``.
    """
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
            waiting.slept(draft, event)
        case EventType.WAIT_MATCHED | EventType.WAIT_TIMEOUT:
            waiting.waited(draft, event)
        case EventType.CHILD_COMPLETED | EventType.CHILD_FAILED:
            waiting.child_ended(draft, event)
        case EventType.APPROVAL_GRANTED | EventType.APPROVAL_REJECTED | EventType.APPROVAL_EXPIRED:
            waiting.answered(draft, event)
        case EventType.WORKFLOW_CANCELLED:
            _cancel(draft)
        case _:  # a second workflow.started, or what only others read
            pass


def _catch_up(draft: Draft) -> None:
    """Let timeouts come first that were due before the event: after a crash timers come late.

    Without this an engine that was away for an hour would accept a result that came fifty minutes
    after the step's timeout, just because the event is read before the timer. It also means that a
    timeout decided here is final: its own message finds no timer any more.
    """
    for timer_id, timer in list(draft.timers.items()):
        is_late = timer.action in TIMEOUTS and 0 < timer.due_ns <= draft.now_ns
        if is_late and timer_id in draft.timers:
            _fire(draft, draft.timers.pop(timer_id), timer_id)


def _cancel(draft: Draft) -> None:
    """Cancel what goes on and what has not begun, then end the run.

    Handlers of failures do not run, and nothing is compensated: a cancellation is a wish, no
    failure. Completed steps keep their status and output.
    """
    for step in draft.definition.steps:
        if draft.is_going(step.id):
            draft.cancel_step(step)
        elif draft.steps[step.id].status is StepStatus.PENDING:
            draft.change(step.id, status=StepStatus.CANCELLED)
    draft.end(RunStatus.CANCELLED)


def _fire(draft: Draft, timer: Timer, timer_id: str) -> None:
    """Do what a timer is for; it has left ``draft.timers`` already.

    =====================================  =====================================================
    action                                 what happens
    =====================================  =====================================================
    sleep, wait, approval                  an event is written, which ends the step when it comes
    retry_backoff, retry_after             the step's task, with the next attempt's number
    loop_delay                             the task of the iteration that was counted before
    step_timeout                           the failure counts at once; the history is told
    run_timeout                            the run is cancelled at once; the history is told
    run_slot                               the run begins
    task_slot, rate_retry                  the task goes on to the next limit, or out
    =====================================  =====================================================

    The id of a retry's task is that of its timer. They are in different streams, so neither is
    taken for a duplicate of the other.
    """
    step_id = timer.step_id
    match timer.action:
        case Action.SLEEP_COMPLETE:
            draft.emit(
                Kind.SLEEP_COMPLETED, draft.id(step_id, "step.sleep.completed"), step_id=step_id
            )
        case Action.RETRY_BACKOFF | Action.RETRY_AFTER:
            # Group, iteration and capabilities stay: the DagNats engine loses them (H11, H12).
            dispatch(draft, draft.definition.step(step_id), timer_id, number=timer.number + 1)
        case Action.LOOP_DELAY:
            iteration = draft.steps[step_id].iterations
            msg_id = draft.id(step_id, "continue", iteration)
            dispatch(draft, draft.definition.step(step_id), msg_id)
        case Action.STEP_TIMEOUT:
            msg_id = draft.id(step_id, "step.failed", timer_id.rpartition("step_timeout.")[2])
            draft.emit(Kind.STEP_TIMED_OUT, msg_id, step_id=step_id, number=timer.number)
            steps.timed_out(draft, timer)
        case Action.RUN_TIMEOUT:
            draft.emit(Kind.RUN_TIMED_OUT, draft.id("workflow.cancelled"))
            _cancel(draft)
        case Action.WAIT_TIMEOUT:
            msg_id = draft.id(step_id, "step.wait.timeout")
            draft.emit(Kind.WAIT_TIMED_OUT, msg_id, step_id=step_id)
        case Action.APPROVAL_TIMEOUT:
            msg_id = draft.id(step_id, "approval.expired")
            draft.emit(Kind.APPROVAL_EXPIRED, msg_id, step_id=step_id)
        case Action.RUN_SLOT:
            draft.begin()
            ready.advance(draft)
        case Action.TASK_SLOT | Action.RATE_RETRY:
            go_on(draft, timer)
