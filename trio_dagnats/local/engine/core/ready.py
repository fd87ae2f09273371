"""Which steps can go now, and how each type of step begins (contract 6.2, 10.3). Pure."""

from collections.abc import Callable, Iterable

from trio_dagnats.errors import WireError
from trio_dagnats.local.engine.core.dispatch import dispatch, dispatch_as
from trio_dagnats.local.engine.core.draft import GOING, Draft
from trio_dagnats.local.engine.core.state import Action, Kind, instance_id
from trio_dagnats.local.engine.core.values.inputs import read_items, resolve_input, skips
from trio_dagnats.local.engine.core.values.paths import walk, wanted
from trio_dagnats.wire.configs import MAX_SLEEP_NS
from trio_dagnats.wire.run import MapInstance, RunStatus, StepStatus
from trio_dagnats.wire.steps import StepDef, StepType
from trio_dagnats.wire.text import compact, parse_rfc3339, rfc3339

COUNTED = frozenset({StepType.NORMAL, StepType.AGENT_LOOP})
"""Types that the engine announces with ``step.queued``, as attempt 1 (contract 2.4)."""


def advance(draft: Draft) -> None:
    """Start every step that can start; end the run when all are done.

    Handlers of failures and compensations are not among them: the real engine starts them if their
    workflow was registered without ``aux_steps`` (contract H9).
    """
    ordinary = [s for s in draft.definition.steps if s.id not in draft.definition.auxiliary]
    going = True
    while going and not draft.is_over:
        begun = [_begin(draft, step) for step in _ready(draft, ordinary)]
        going = any(begun)
    if not draft.is_over and all(draft.steps[step.id].status.is_done for step in ordinary):
        draft.end(RunStatus.COMPLETED)


def _ready(draft: Draft, steps: Iterable[StepDef]) -> list[StepDef]:
    return [
        step
        for step in steps
        if draft.steps[step.id].status is StepStatus.PENDING
        and all(draft.steps[other].status.is_done for other in step.depends_on)
    ]


def _has_room(draft: Draft) -> bool:
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
    draft.change(step.id, status=StepStatus.QUEUED)
    if step.type in COUNTED:
        draft.change(step.id, attempts=1)
        draft.emit(Kind.STEP_QUEUED, draft.id(step.id, "step.queued.1"), step_id=step.id, number=1)
    dispatch(draft, step, draft.id(step.id, "queued"))


def _begin_sleep(draft: Draft, step: StepDef) -> None:
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
    """Return the nanoseconds until a time in the run's input, 0 if there is none."""
    found, value = walk(path, draft.run.input)
    if not found or not isinstance(value, str):
        return 0
    try:
        return max(1, parse_rfc3339(value) - draft.now_ns)
    except WireError:
        return 0


def _begin_map(draft: Draft, step: StepDef) -> None:
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
    child = draft.nonce()
    _run(draft, step, child_run_id=child)
    draft.emit(Kind.SPAWN, draft.id(step.id, "workflow.spawn"), step_id=step.id, text=child)
    if step.child.detach:
        draft.complete(step.id, compact({"child_run_id": child}))


def _begin_wait(draft: Draft, step: StepDef) -> None:
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
    token = {"step_id": step.id, "nonce": _run(draft, step)}
    draft.emit(Kind.APPROVAL_TOKEN, draft.id(step.id, "token"), **token)
    draft.emit(Kind.APPROVAL_ASKED, draft.id(step.id, "approval.requested"), **token)
    draft.emit(Kind.APPROVAL_NOTICE, draft.id(step.id, "notice"), **token)
    timer = draft.id(step.id, Action.APPROVAL_TIMEOUT.value)
    draft.start_timer(timer, Action.APPROVAL_TIMEOUT, step.approval.timeout, step.id)


def _run(draft: Draft, step: StepDef, **changes: object) -> str:
    """Let a step run that the engine does; return its nonce."""
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
