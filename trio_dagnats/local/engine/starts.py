"""Reading ``workflow.started``: which workflow, with which input (contract 6.2)."""

import json

from trio_dagnats.errors import UsageError
from trio_dagnats.local.engine.supported import check_supported
from trio_dagnats.transport.patience import soon
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.events import HistoryEvent
from trio_dagnats.wire.names import BUCKET_DEFS
from trio_dagnats.wire.workflow import WorkflowDef

UNKNOWN = WorkflowDef.model_validate({"name": "unknown", "steps": [{"id": "none", "task": "none"}]})
"""Stands in the snapshot of a run whose workflow cannot be read."""


async def read_start(broker: Broker, event: HistoryEvent) -> tuple[WorkflowDef, object, str]:
    """Return the workflow, the input (None for none), and why it cannot start, empty if it can.

    Raises:
        BrokerError: the server did not answer in time.
    """
    payload: object = json.loads(event.payload) if event.payload else None
    if not isinstance(payload, dict):
        return UNKNOWN, None, "workflow.started without a workflow"
    found: object = payload.get("workflow_def", payload)
    given: object = payload.get("input") if "workflow_def" in payload else None
    if "workflow_id" in payload:  # a trigger's envelope, which is the input as a whole
        found = await find_definition(broker, str(payload["workflow_id"]))
        given = payload
        if found is None:
            return UNKNOWN, given, f"workflow {payload['workflow_id']!r} is not registered"
    try:
        definition = found if isinstance(found, WorkflowDef) else _read(found)
        check_supported(definition)
    except UsageError as error:
        return UNKNOWN, given, str(error)
    return definition, given, ""


async def find_definition(broker: Broker, name: str) -> WorkflowDef | None:
    """Return a registered workflow.

    Raises:
        UsageError: what is stored under the name is none.
        BrokerError: the server did not answer in time.
    """
    deadline = soon()
    entry = await broker.kv_get(BUCKET_DEFS, name, deadline=deadline)
    return None if entry is None else WorkflowDef.read(entry.value)


def _read(found: object) -> WorkflowDef:
    if not isinstance(found, dict):
        raise UsageError("workflow.started without a workflow")
    return WorkflowDef.read(found)
