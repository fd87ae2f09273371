"""Which steps can go now, and how each type of step begins (contract 6.2, 10.3). Pure."""

from trio_dagnats.local.engine.draft import Draft
from trio_dagnats.local.engine.inputs import instance_id, read_items, resolve_input, skips
from trio_dagnats.local.engine.state import Action, Kind
from trio_dagnats.wire.run import MapInstance, RunStatus, StepStatus
from trio_dagnats.wire.steps import StepDef, StepType
from trio_dagnats.wire.text import rfc3339

COUNTED = frozenset({StepType.NORMAL, StepType.AGENT_LOOP})
"""Types that the engine announces with ``step.queued``, as attempt 1 (contract 2.4)."""


def advance(draft: Draft) -> None:
    """Start every step that can start; end the run when all are done."""
    going = True
    while going and not draft.is_over:
        going = False
        for step in _ready(draft):
            going = _begin(draft, step) or going
    if not draft.is_over and all(state.status.is_done for state in draft.steps.values()):
        draft.end(RunStatus.COMPLETED)
    # Tasks last: what they answer must find the announcements of their steps in the history.
    draft.effects.sort(key=lambda effect: effect.kind is Kind.TASK)


def _ready(draft: Draft) -> list[StepDef]:
    return [
        step
        for step in draft.definition.steps
        if draft.steps[step.id].status is StepStatus.PENDING
        and all(draft.steps[other].status.is_done for other in step.depends_on)
    ]


def _begin(draft: Draft, step: StepDef) -> bool:
    """Start a step; say whether that may have made others ready."""
    if draft.is_over:
        return False
    if skips(step.skip_if, draft.steps):
        draft.change(step.id, status=StepStatus.SKIPPED)
        return True
    if step.type is StepType.SLEEP:
        _begin_sleep(draft, step)
        return False
    if step.type is StepType.MAP:
        return _begin_map(draft, step)
    _begin_task(draft, step)
    return False


def _begin_task(draft: Draft, step: StepDef) -> None:
    draft.change(step.id, status=StepStatus.QUEUED)
    if step.type in COUNTED:
        draft.change(step.id, attempts=1)
        draft.emit(Kind.STEP_QUEUED, draft.id(step.id, "step.queued.1"), step_id=step.id, number=1)
    draft.dispatch(step, draft.id(step.id, "queued"))


def _begin_sleep(draft: Draft, step: StepDef) -> None:
    duration = step.sleep.duration
    assert duration is not None  # the other forms are refused at registration
    wake_at = rfc3339(draft.now_ns + duration)
    draft.change(step.id, status=StepStatus.RUNNING, wake_at=wake_at, dispatch_nonce=draft.nonce())
    draft.emit(Kind.SLEEP_STARTED, draft.id(step.id, "step.sleep.started"), step_id=step.id)
    timer = draft.id(step.id, Action.SLEEP_COMPLETE.value)
    draft.start_timer(timer, Action.SLEEP_COMPLETE, duration, step.id)


def _begin_map(draft: Draft, step: StepDef) -> bool:
    items = read_items(resolve_input(step, draft.run.model_copy(update={"steps": draft.steps})))
    if items is None:
        draft.fail_step(step.id, f"the output of {step.depends_on[0]!r} is no list to map over")
        return False
    if len(items) > step.map.max_items:
        draft.fail_step(
            step.id, f"{len(items)} items are more than max_items ({step.map.max_items})"
        )
        return False
    if not items:
        # The DagNats engine waits for ever here (contract H10).
        draft.complete(step.id, b"[]")
        return True
    queued = MapInstance(status=StepStatus.QUEUED)
    draft.change(
        step.id,
        status=StepStatus.RUNNING,
        map_instances=(queued,) * len(items),
        dispatch_nonce=draft.nonce(),
    )
    for index in range(len(items)):
        name = instance_id(step.id, index)
        draft.emit(Kind.TASK, draft.id(name, "queued"), step_id=name, nonce=draft.nonce())
    return False
