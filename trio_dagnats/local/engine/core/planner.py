"""The steps that a planner adds to its run (contract 10.3). Pure.

A planner's output is ``{"steps": [...]}``, each a step as in a workflow's definition. They
become part of this run only: the definition in the run's book grows, the registered workflow
does not. All is checked before anything changes, so a bad plan adds nothing.

Added steps are ``<planner>.<id>``, of the type ``normal`` whatever the plan says, so a plan can
neither hide an existing step nor plan on. Their errors are sentences that the user reads as the
error of the planner's step.
"""

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trio_dagnats.errors import UsageError
from trio_dagnats.local.engine.core.draft import Draft
from trio_dagnats.local.engine.core.state import Kind
from trio_dagnats.wire.definitions.configs import PlannerConfig
from trio_dagnats.wire.definitions.steps import StepDef, StepType
from trio_dagnats.wire.definitions.workflow import WorkflowDef, validation_text
from trio_dagnats.wire.run import StepState

MOST_ADDED = 500
"""Steps that all planners of a run may add together."""


class _Plan(BaseModel):
    """A planner's output; keys beside ``steps`` are ignored."""

    model_config = ConfigDict(extra="ignore")

    steps: tuple[dict[str, object], ...] = Field(default=())


def materialize(draft: Draft, planner_id: str, output: bytes) -> str:
    """Add a planner's steps to the run; say what is wrong with them, empty if nothing is.

    Called when the planner has completed, before its dependents are looked for: the new steps
    depend on it, or on each other, and are ready like any others. Steps of the workflow that
    depend on the planner do not wait for them.
    """
    try:
        plan = _Plan.model_validate_json(output or b"{}")
        added = [_namespaced(planner_id, step) for step in plan.steps]
        problem = _problem(added, draft, draft.definition.step(planner_id).planner, planner_id)
        definition = _with(draft.definition, added)
    except ValidationError as error:
        return f"not a plan: {validation_text(error)}"
    except UsageError as error:
        return f"not a plan: {error}"
    if problem or not added:
        return problem
    draft.definition = definition
    draft.run = draft.run.model_copy(update={"dynamic_steps": (*draft.run.dynamic_steps, *added)})
    draft.steps |= {step.id: StepState() for step in added}
    msg_id = draft.id(planner_id, "planner.materialized")
    draft.emit(Kind.MATERIALIZED, msg_id, step_id=planner_id)
    return ""


def _namespaced(planner_id: str, step: dict[str, object]) -> StepDef:
    """Return a step under its planner's name; those that depend on none depend on the planner."""
    given = StepDef.model_validate({"type": StepType.NORMAL, **step})
    after = tuple(f"{planner_id}.{other}" for other in given.depends_on) or (planner_id,)
    update = {"id": f"{planner_id}.{given.id}", "type": StepType.NORMAL, "depends_on": after}
    return given.model_copy(update=update)


def _with(definition: WorkflowDef, added: list[StepDef]) -> WorkflowDef:
    """Return the definition with more steps, checked as a whole like one that is registered.

    Raises:
        UsageError: the steps do not fit together: a circle, an id twice, a missing task.
    """
    steps = [step.to_wire() for step in (*definition.steps, *added)]
    return WorkflowDef.read({**definition.to_wire(), "steps": steps})


def _problem(added: list[StepDef], draft: Draft, config: PlannerConfig, planner_id: str) -> str:
    """Say which of the planner's bounds a plan breaks, empty if it keeps them.

    Dependencies are taken as names of the same plan, so steps of the workflow cannot be among
    them.
    """
    if len(added) > config.max_steps:
        return f"the plan has {len(added)} steps, more than max_steps ({config.max_steps})"
    if len(added) + len(draft.run.dynamic_steps) > MOST_ADDED:
        return f"planners of this run have added more than {MOST_ADDED} steps together"
    own = {step.id for step in added}
    for step in added:
        strange = set(step.depends_on) - own - {planner_id}
        if strange:
            return f"step {step.id!r} depends on {min(strange)!r}, which is not in the plan"
        if config.allowed_tasks and step.task not in config.allowed_tasks:
            return f"step {step.id!r} has the task {step.task!r}, which is not allowed"
    depth = _depth(added)
    if config.max_depth and depth > config.max_depth:
        return f"the plan is {depth} steps deep, more than max_depth ({config.max_depth})"
    return ""


def _depth(steps: list[StepDef]) -> int:
    """Return the length of the longest chain; a circle counts as too long.

    It lets depths spread once for each step, which is enough for any chain without a circle.
    """
    depths = dict.fromkeys((step.id for step in steps), 1)
    for _ in steps:
        for step in steps:
            above = max(depths.get(other, 0) for other in step.depends_on)
            depths[step.id] = above + 1
    return max(depths.values(), default=0)
