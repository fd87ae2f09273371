"""What events of a map's instances do to a run (contract 10.3). Pure.

The instances of a map have no entry among the run's steps. Their states are a tuple inside the
map step's own, so that they count as one step for ``max_steps``, and one look says whether all
are done. An event is theirs if its step id is ``<step>.map.<index>``.

An instance is ``queued`` until it is completed or failed. It is never ``running``, because
``step.started`` of an instance is ignored (contract 6.3), and so it has no timeout.
"""

from pydantic_core import from_json

from trio_dagnats.local.engine.core.draft import Draft
from trio_dagnats.local.engine.core.recovery import carry_on, fail
from trio_dagnats.local.engine.core.state import instance_id
from trio_dagnats.wire.run import MapInstance, StepState, StepStatus
from trio_dagnats.wire.text import compact


def completed(draft: Draft, step_id: str, index: int, payload: bytes) -> None:
    """Keep an instance's output; complete the map with the last one's.

    Outputs stand in the order of the items, whichever ends first. The map's own output is the
    list of them, an instance without output as ``null``. A second completion of an instance is
    ignored.
    """
    if _instance(draft, step_id, index) is None:
        return
    output: object = from_json(payload) if payload else None
    state = _change(draft, step_id, index, status=StepStatus.COMPLETED, output=output)
    draft.let_go(instance_id(step_id, index))
    if all(i.status is StepStatus.COMPLETED for i in state.map_instances):
        draft.complete(step_id, compact([i.output for i in state.map_instances]))
        carry_on(draft, step_id)


def failed(draft: Draft, step_id: str, index: int, error: str) -> None:
    """Fail the map: an instance is never retried (contract 10.3).

    The first failure decides: the others may still be running, and what they report later finds
    a step that is over. Slots that instances hold or wait for are given back at once; without
    limits there are none to look for.
    """
    if _instance(draft, step_id, index) is None:
        return
    state = _change(draft, step_id, index, status=StepStatus.FAILED, error=error)
    if draft.definition.step(step_id).is_limited:
        for other in range(len(state.map_instances)):
            draft.let_go(instance_id(step_id, other))
    fail(draft, step_id, f"map instance {index} failed: {error}")


def _instance(draft: Draft, step_id: str, index: int) -> MapInstance | None:
    """Return an instance that is still going."""
    if not draft.is_going(step_id):
        return None
    instances = draft.steps[step_id].map_instances
    going = index < len(instances) and instances[index].status is StepStatus.QUEUED
    return instances[index] if going else None


def _change(draft: Draft, step_id: str, index: int, **changes: object) -> StepState:
    """Replace an instance's state; the tuple is copied, as models are frozen."""
    instances = list(draft.steps[step_id].map_instances)
    instances[index] = instances[index].model_copy(update=changes)
    return draft.change(step_id, map_instances=tuple(instances))
