"""What the local engine does not do, in one table; it is refused when it is registered.

Refusing at once is the point: a workflow that is quietly run otherwise than in production would
teach its author something wrong. It is asked at registration and again at each start, because a
definition may also come with the event or lie in the bucket from a DagNats engine.
"""

from trio_dagnats.errors import UsageError
from trio_dagnats.local.engine.core.values.schema import unknown_types
from trio_dagnats.wire.definitions.steps import StepDef, StepType
from trio_dagnats.wire.definitions.workflow import WorkflowDef

UNSUPPORTED_TYPES = frozenset({StepType.RESPOND})
UNSUPPORTED_KEYS = ("sticky",)
CONTROL_PLANE = "control-plane"


def check_supported(definition: WorkflowDef) -> None:
    """Refuse what this engine would not do as the DagNats engine does it.

    Raises:
        UsageError: the text names each such feature and where it stands.
    """
    found = [key for key in UNSUPPORTED_KEYS if getattr(definition, key)]
    found += [f"{what} (input_schema)" for what in unknown_types(definition.input_schema)]
    for step in definition.steps:
        found += [f"{what} (step {step.id!r})" for what in _of_step(step)]
    if found:
        raise UsageError(
            f"workflow {definition.name!r} needs what the local engine does not do: "
            f"{', '.join(found)}; remove it, or run this workflow on a DagNats engine"
        )


def _of_step(step: StepDef) -> list[str]:
    """Name the features of a step that are not supported.

    Not a list of what it can: whatever is not named here is done.
    """
    found = ["singleton"] if step.singleton else []
    if step.type in UNSUPPORTED_TYPES:
        found.append(f"the type {step.type.value!r}")
    if step.type is StepType.SLEEP and step.sleep.cron:
        found.append("a sleep by cron")
    if CONTROL_PLANE in step.required_capabilities:
        found.append(f"the capability {CONTROL_PLANE!r}")
    return found
