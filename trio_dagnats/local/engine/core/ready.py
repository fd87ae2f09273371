"""Which steps can go now, and how each type of step begins (contract 6.2, 10.3). Pure.

=================  ===========================================  ===================================
type               how it begins                                what ends it
=================  ===========================================  ===================================
normal, agent_loop ``step.queued`` is written, a task is sent   a worker's outcome (``steps``)
agent, planner     a task is sent                               the same
map                a task for each item                         the last instance (``maps``)
sleep              a timer                                      its event (``waiting``)
wait_for_event     a waiter, and a timer for the timeout        the event, or the timer's
approval           a token, a notice to people, and a timer     the answer, or the timer's
sub_workflow       ``workflow.spawn``; the child's id is ours   the child's end; at once if detached
=================  ===========================================  ===================================

A step with one task is ``queued`` until a worker starts it. All others are ``running`` from the
beginning: a map because its instances have states of their own, the rest because the engine
itself does them.
"""

from collections.abc import Callable, Iterable

from trio_dagnats.errors import WireError
from trio_dagnats.local.engine.core.dispatch import dispatch, dispatch_as
from trio_dagnats.local.engine.core.draft import GOING, Draft
from trio_dagnats.local.engine.core.state import Action, Kind, instance_id
from trio_dagnats.local.engine.core.values.inputs import read_items, resolve_input, skips
from trio_dagnats.local.engine.core.values.paths import walk, wanted
from trio_dagnats.wire.definitions.configs import MAX_SLEEP_NS
from trio_dagnats.wire.definitions.steps import StepDef, StepType
from trio_dagnats.wire.run import MapInstance, RunStatus, StepStatus
from trio_dagnats.wire.text import compact, parse_rfc3339, rfc3339

COUNTED = frozenset({StepType.NORMAL, StepType.AGENT_LOOP})
"""Types that the engine announces with ``step.queued``, as attempt 1 (contract 2.4)."""


def advance(draft: Draft) -> None:
    """Start every step that can start; end the run when all are done.

    Handlers of failures and compensations are not among them: the real engine starts them if their
    workflow was registered without ``aux_steps`` (contract H9).

    Called whenever something may have become possible: at the beginning, after each completion,
    and after a failure that is handled, because that makes room under ``max_steps``. It looks at
    all steps each time. A list of "those that became ready" would have to survive a crash; the
    states of the steps do so anyway.

    It goes round again while a step was done as soon as it began (skipped, an empty map, a detached
    child): its dependents are ready then, and no event will come that says so.
    """
    ordinary = [s for s in draft.definition.steps if s.id not in draft.definition.auxiliary]
    going = True
    while going and not draft.is_over:
        begun = [_begin(draft, step) for step in _ready(draft, ordinary)]
        going = any(begun)
    if not draft.is_over and all(draft.steps[step.id].status.is_done for step in ordinary):
        draft.end(RunStatus.COMPLETED)


def _ready(draft: Draft, steps: Iterable[StepDef]) -> list[StepDef]:
    """Return the steps that have not begun and whose dependencies are done.

    Skipped and recovered dependencies count as done.
    """
    return [
        step
        for step in steps
        if draft.steps[step.id].status is StepStatus.PENDING
        and all(draft.steps[other].status.is_done for other in step.depends_on)
    ]


def _has_room(draft: Draft) -> bool:
    """Say whether ``max_steps`` allows one more step to go on.

    Counted anew for each step, as the one before it in the same round has taken a place. A step
    that finds none stays pending and is not remembered anywhere: the next :func:`advance` finds it.
    """
    limits = draft.definition.concurrency
    if limits is None or not limits.max_steps:
        return True
    return sum(state.status in GOING for state in draft.steps.values()) < limits.max_steps


def _begin(draft: Draft, step: StepDef) -> bool:
    """Start a step; say whether that may have made others ready."""
    if draft.is_over:
        return False
    if skips(step.skip_if, draft.steps):
        draft.change(step.id, status=StepStatus.SKIPPED)
        return True
    if not _has_room(draft):
        return False
    _BEGIN.get(step.type, _begin_task)(draft, step)
    return draft.steps[step.id].status.is_done


def _begin_task(draft: Draft, step: StepDef) -> None:
    """Queue a step and send its first task.

    The attempt is counted here and announced as ``step.queued``, for the two types for which the
    DagNats engine does so; readers of histories know an attempt by it. The core ignores the event
    when it comes back.
    """
    draft.change(step.id, status=StepStatus.QUEUED)
    if step.type in COUNTED:
        draft.change(step.id, attempts=1)
        draft.emit(Kind.STEP_QUEUED, draft.id(step.id, "step.queued.1"), step_id=step.id, number=1)
    dispatch(draft, step, draft.id(step.id, "queued"))


def _begin_sleep(draft: Draft, step: StepDef) -> None:
    """Begin a sleep; one that cannot be is a failure.

    ``wake_at`` is for readers of the run. The timer alone wakes it, and it is a message of the
    server's: it is due although the engine was away in between.
    """
    duration = step.sleep.duration
    if duration is None:
        duration = _until(draft, step.sleep.until_input_path or "")
    if not 0 < duration <= MAX_SLEEP_NS:
        path = step.sleep.until_input_path
        draft.fail_step(step.id, f"the input has no time within the next 365 days at {path!r}")
        return
    wake_at = rfc3339(draft.now_ns + duration)
    _run(draft, step, wake_at=wake_at)
    draft.emit(Kind.SLEEP_STARTED, draft.id(step.id, "step.sleep.started"), step_id=step.id)
    timer = draft.id(step.id, Action.SLEEP_COMPLETE.value)
    draft.start_timer(timer, Action.SLEEP_COMPLETE, duration, step.id)


def _until(draft: Draft, path: str) -> int:
    """Return the nanoseconds until a time in the run's input, 0 if there is none.

    A time that has passed is 1 ns ahead, so the sleep ends at once and is no mistake.
    """
    found, value = walk(path, draft.run.input)
    if not found or not isinstance(value, str):
        return 0
    try:
        return max(1, parse_rfc3339(value) - draft.now_ns)
    except WireError:
        return 0


def _begin_map(draft: Draft, step: StepDef) -> None:
    """Begin a map, or fail or complete it, as its list is.

    An empty list completes it with an empty one. The instances exist as states inside the step's
    own; they have no entry among the run's steps, so they do not count for ``max_steps``.
    """
    items = read_items(resolve_input(step, draft.peek().run))
    if items is None:
        draft.fail_step(step.id, f"the output of {step.depends_on[0]!r} is no list to map over")
    elif len(items) > step.map.max_items:
        draft.fail_step(
            step.id, f"{len(items)} items are more than max_items ({step.map.max_items})"
        )
    elif not items:
        # The DagNats engine waits for ever here (contract H10).
        draft.complete(step.id, b"[]")
    else:
        queued = MapInstance(status=StepStatus.QUEUED)
        _run(draft, step, map_instances=(queued,) * len(items))
        _dispatch_instances(draft, step, len(items))


def _dispatch_instances(draft: Draft, step: StepDef, count: int) -> None:
    """Send a task for each item of a map.

    Without limits it is one effect for all of them, as an effect for each of thousands of items
    would stand in the book and be written with it. With limits each instance has to wait for
    itself. The run may end in the middle of that: a rate limit's key may be missing.
    """
    if not step.is_limited:
        nonce = draft.steps[step.id].dispatch_nonce
        msg_id = draft.id(step.id, "map")
        draft.emit(Kind.MAP_TASKS, msg_id, step_id=step.id, number=count, nonce=nonce)
        return
    for index in range(count):
        if not draft.is_over:
            name = instance_id(step.id, index)
            dispatch_as(draft, step, name, draft.id(name, "queued"))


def _begin_child(draft: Draft, step: StepDef) -> None:
    """Begin a sub-workflow.

    The child's id is chosen by the parent and stored with it, so the spawn that is sent again after
    a crash begins the same child. A detached one completes the step at once, with that id as
    output.
    """
    child = draft.nonce()
    _run(draft, step, child_run_id=child)
    draft.emit(Kind.SPAWN, draft.id(step.id, "workflow.spawn"), step_id=step.id, text=child)
    if step.child.detach:
        draft.complete(step.id, compact({"child_run_id": child}))


def _begin_wait(draft: Draft, step: StepDef) -> None:
    """Begin to wait for an event.

    What the event has to match is read from the run now. If it is not there no event could ever
    match, so the run fails now and not at the timeout.
    """
    found, _ = wanted(step.wait.match, draft.peek())
    if not found:
        right = step.wait.match.right
        draft.fail_step(step.id, f"there is nothing at {right!r} to match events with")
        return
    _run(draft, step)
    draft.emit(Kind.WAIT_STARTED, draft.id(step.id, "step.wait.started"), step_id=step.id)
    draft.emit(Kind.WAITER, draft.id(step.id, "waiter"), step_id=step.id)
    timer = draft.id(step.id, Action.WAIT_TIMEOUT.value)
    draft.start_timer(timer, Action.WAIT_TIMEOUT, step.wait.timeout, step.id)


def _begin_approval(draft: Draft, step: StepDef) -> None:
    """Ask people for an approval.

    The token is the step's nonce. It is stored before people are told of it, because what is no
    message of a stream is done in the order of the outbox.
    """
    token = {"step_id": step.id, "nonce": _run(draft, step)}
    draft.emit(Kind.APPROVAL_TOKEN, draft.id(step.id, "token"), **token)
    draft.emit(Kind.APPROVAL_ASKED, draft.id(step.id, "approval.requested"), **token)
    draft.emit(Kind.APPROVAL_NOTICE, draft.id(step.id, "notice"), **token)
    timer = draft.id(step.id, Action.APPROVAL_TIMEOUT.value)
    draft.start_timer(timer, Action.APPROVAL_TIMEOUT, step.approval.timeout, step.id)


def _run(draft: Draft, step: StepDef, **changes: object) -> str:
    """Let a step run that the engine does; return its nonce.

    Such a step has no task, so nobody starts it; ``changes`` are more fields of its state.
    """
    nonce = draft.nonce()
    draft.change(step.id, status=StepStatus.RUNNING, dispatch_nonce=nonce, **changes)
    return nonce


_BEGIN: dict[StepType, Callable[[Draft, StepDef], None]] = {
    StepType.SLEEP: _begin_sleep,
    StepType.MAP: _begin_map,
    StepType.SUB_WORKFLOW: _begin_child,
    StepType.WAIT_FOR_EVENT: _begin_wait,
    StepType.APPROVAL: _begin_approval,
}
"""How the types begin that the engine does, or does more for than sending one task."""
