"""What the local engine does not do, in one table; it is refused when it is registered."""

from trio_dagnats.errors import UsageError
from trio_dagnats.wire.steps import StepDef, StepType
from trio_dagnats.wire.workflow import WorkflowDef

UNSUPPORTED_TYPES = frozenset(
    {
        StepType.PLANNER,
        StepType.SUB_WORKFLOW,
        StepType.WAIT_FOR_EVENT,
        StepType.APPROVAL,
        StepType.RESPOND,
    }
)
UNSUPPORTED_STEP_KEYS = (
    "on_failure",
    "compensate",
    "rate_limit",
    "keyed_rate_limit",
    "max_task_concurrency",
    "singleton",
)
UNSUPPORTED_KEYS = (
    "concurrency",
    "input_schema",
    "idempotency_key",
    "sticky",
    "priority",
    "cancel_on",
    "singleton",
)
UNSUPPORTED_SLEEPS = ("cron", "until_input_path")
CONTROL_PLANE = "control-plane"


def check_supported(definition: WorkflowDef) -> None:
    """Refuse what this engine would not do as the DagNats engine does it.

    Raises:
        UsageError: the text names each such feature and where it stands.
    """
    found = [f"{key} of the workflow" for key in UNSUPPORTED_KEYS if getattr(definition, key)]
    for step in definition.steps:
        found += [f"{what} of step {step.id!r}" for what in _of_step(step)]
    if found:
        raise UsageError(
            f"the local engine does not do {', '.join(found)}; remove it, or run this workflow on "
            "a DagNats engine"
        )


def _of_step(step: StepDef) -> list[str]:
    found = [key for key in UNSUPPORTED_STEP_KEYS if getattr(step, key)]
    if step.type in UNSUPPORTED_TYPES:
        found.append(f"the type {step.type.value!r}")
    if step.type is StepType.SLEEP:
        found += [f"a sleep by {key}" for key in UNSUPPORTED_SLEEPS if getattr(step.sleep, key)]
    if CONTROL_PLANE in step.required_capabilities:
        found.append(f"the capability {CONTROL_PLANE!r}")
    return found
