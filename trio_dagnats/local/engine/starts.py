"""Reading what begins a run: ``workflow.started`` and ``workflow.spawn`` (contract 6.2, 10.3).

A start may come from the API, from a schedule, from a trigger or from any program that publishes
the event, in three forms: a definition with an input, a trigger's envelope with the name of a
registered workflow, or a bare definition. All are checked here again, because anybody may
publish it.

What is wrong does not raise: it becomes :attr:`Start.problem`, and with it a failed run that says
why. Somebody has been given the run's id and may wait for it.
"""

from collections.abc import Mapping
from contextlib import suppress

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from trio_dagnats.errors import Conflict, UsageError
from trio_dagnats.local.engine.core.supported import check_supported
from trio_dagnats.local.engine.core.transitions import Start
from trio_dagnats.local.engine.core.values.schema import mismatch
from trio_dagnats.local.engine.runs import Runs
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.definitions.workflow import WorkflowDef
from trio_dagnats.wire.events import EventType, HistoryEvent
from trio_dagnats.wire.ids import Id, IdOrEmpty
from trio_dagnats.wire.names import BUCKET_DEFS, history_subject
from trio_dagnats.wire.text import compact, rfc3339

MOST_DEEP = 3
"""A run, its children and their children; no more (contract 9.2)."""
UNKNOWN = WorkflowDef.model_validate({"name": "unknown", "steps": [{"id": "none", "task": "none"}]})
"""Stands in the snapshot of a run whose workflow cannot be read.

A run must have a workflow to be stored; nothing of it ever begins, as the run fails.
"""


class Spawn(BaseModel):
    """The payload of ``workflow.spawn``.

    Ids are checked as such here: they become parts of subjects and keys.
    """

    model_config = ConfigDict(extra="ignore")

    child_run_id: Id
    child_workflow: str
    parent_step_id: IdOrEmpty
    detach: bool = False
    input: object = None


async def read_start(broker: Broker, event: HistoryEvent) -> Start:
    """Return the run to begin, or why it cannot.

    A payload that is no JSON object is a problem of the run, too, not an error.

    Raises:
        BrokerError: the server did not answer in time.
    """
    payload: object = from_json(event.payload) if event.payload else None
    if not isinstance(payload, dict):
        return Start(definition=UNKNOWN, problem="workflow.started without a workflow")
    found: object = payload.get("workflow_def", payload)
    given: object = payload.get("input") if "workflow_def" in payload else None
    if "workflow_id" in payload:  # a trigger's envelope, which is the input as a whole
        return await _registered(broker, str(payload["workflow_id"]), payload)
    try:
        definition = _read(found)
        check_supported(definition)
    except UsageError as error:
        return Start(definition=UNKNOWN, given=given, problem=str(error))
    return _checked(definition, given)


def spawned(event: HistoryEvent) -> str | None:
    """Return the id of the run that a ``workflow.spawn`` begins, None if it names none.

    Called while messages are sorted into lanes: the child's lane, not the parent's, begins the
    child.
    """
    spawn = _spawn(event)
    return spawn.child_run_id if spawn is not None else None


async def read_spawn(broker: Broker, runs: Runs, event: HistoryEvent) -> Start | None:
    """Return a child to begin, or why it cannot; None if its parent is over and waits no more.

    A parent that is over waits for nothing, so no child is begun for it, unless it is detached.
    The parent's snapshot was stored before the spawn was sent, so it is there, or it is not
    ours.

    Raises:
        BrokerError: the server did not answer in time.
    """
    spawn, parent = _spawn(event), await runs.peek(event.run_id)
    if spawn is None or parent is None:
        return None
    begun = await _registered(broker, spawn.child_workflow, spawn.input)
    if spawn.detach:
        return begun
    if parent.run.status.is_terminal:
        return None
    if await _depth(runs, event.run_id) >= MOST_DEEP:
        # The DagNats engine only logs this, and the parent waits for ever.
        problem = f"sub-workflows may be {MOST_DEEP - 1} levels deep, not more"
        begun = begun.model_copy(update={"problem": problem})
    parents = {
        "parent_run_id": event.run_id,
        "parent_step_id": spawn.parent_step_id,
        "root_run_id": parent.run.root_run_id or event.run_id,
    }
    return begun.model_copy(update=parents)


async def find_definition(broker: Broker, name: str) -> WorkflowDef | None:
    """Return a registered workflow.

    Raises:
        UsageError: what is stored under the name is none.
        BrokerError: the server did not answer in time.
    """
    deadline = deadline_in()
    entry = await broker.kv_get(BUCKET_DEFS, name, deadline=deadline)
    return None if entry is None else WorkflowDef.read(entry.value)


async def store_start(
    broker: Broker, run_id: str, payload: Mapping[str, object], *, only_once: bool
) -> None:
    """Store the event that begins a run.

    Called by the API and by the schedule. ``only_once`` is a condition on the subject, not on
    the message's id: ids are forgotten after seconds, an empty history is empty for good.

    Args:
        broker: the server.
        run_id: the run.
        payload: what it begins with.
        only_once: leave a run alone that has begun: an earlier try may have done that.

    Raises:
        NotStored: not acknowledged in time; it may be stored.
    """
    event = {
        "type": EventType.WORKFLOW_STARTED.value,
        "run_id": run_id,
        "timestamp": rfc3339(broker.time_ns()),
        "payload": payload,
    }
    with suppress(Conflict):
        await broker.store(
            history_subject(run_id),
            compact(event),
            msg_id=f"{run_id}.workflow.started",
            expect_last=0 if only_once else None,
            deadline=deadline_in(),
        )


async def _registered(broker: Broker, name: str, given: object) -> Start:
    """Begin a registered workflow, as triggers and spawns do; that there is none is a problem."""
    try:
        definition = await find_definition(broker, name)
        if definition is not None:
            check_supported(definition)
    except UsageError as error:
        return Start(definition=UNKNOWN, given=given, problem=str(error))
    if definition is None:
        problem = f"workflow {name!r} is not registered"
        return Start(definition=UNKNOWN, given=given, problem=problem)
    return _checked(definition, given)


def _checked(definition: WorkflowDef, given: object) -> Start:
    problem = mismatch(definition.input_schema, given)
    return Start(definition=definition, given=given, problem=problem)


async def _depth(runs: Runs, run_id: str) -> int:
    """Return how many runs there are from a run up to the top.

    It stops counting at the most that is allowed, so a circle of parents does no harm.
    """
    for depth in range(MOST_DEEP):
        found = await runs.peek(run_id) if run_id else None
        if found is None:
            return depth
        run_id = found.run.parent_run_id
    return MOST_DEEP


def _spawn(event: HistoryEvent) -> Spawn | None:
    try:
        return Spawn.model_validate_json(event.payload)
    except ValidationError:
        return None


def _read(found: object) -> WorkflowDef:
    if not isinstance(found, dict):
        raise UsageError("workflow.started without a workflow")
    return WorkflowDef.read(found)
