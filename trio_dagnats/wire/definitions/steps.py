"""Steps of a workflow (contract 10.2).

A step is one node of a workflow's graph. Its type says who carries it out, and what its ``config``
has to hold:

==================  =============================  ==================================  =============
type                carried out by                 config                              needs a task
==================  =============================  ==================================  =============
``normal``          a worker, once                 none                                yes
``agent``           a worker, once                 none                                yes
``agent_loop``      a worker, once an iteration    ``LoopConfig``                      yes
``map``             a worker, once an item         ``MapConfig``                       yes
``planner``         a worker; its output is steps  ``PlannerConfig``                   yes
``sub_workflow``    the engine: another run        ``ChildConfig``                     no
``sleep``           the engine: a timer            ``SleepConfig``                     no
``wait_for_event``  the engine: a subscription     ``WaitConfig``                      no
``approval``        the engine: a person           ``ApprovalConfig``                  no
``respond``         the engine: an HTTP answer     not checked here                    no
==================  =============================  ==================================  =============

On the wire the first two are the same, but that no ``step.queued`` is published for an ``agent``.

Made by the client's builder and by reading what is stored; read by the local engine, step by step.
A worker never sees one: all that it gets of a step is a task.
"""

from enum import StrEnum
from typing import Annotated, Self, final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trio_dagnats.wire.definitions.configs import (
    KEY,
    ApprovalConfig,
    ChildConfig,
    Config,
    Count,
    KeyedRateLimit,
    LoopConfig,
    MapConfig,
    PlannerConfig,
    RateLimit,
    SleepConfig,
    WaitConfig,
)
from trio_dagnats.wire.definitions.retry import RetryPolicy
from trio_dagnats.wire.ids import Id, IdOrEmpty

MAX_CONCURRENCY = 1000
"""Tasks of a type at once: the most that the engine accepts; 0 is no limit at all."""


@final
class StepType(StrEnum):
    """What a step is; the table above says what follows from it."""

    NORMAL = "normal"
    AGENT = "agent"
    AGENT_LOOP = "agent_loop"
    MAP = "map"
    PLANNER = "planner"
    SUB_WORKFLOW = "sub_workflow"
    SLEEP = "sleep"
    WAIT_FOR_EVENT = "wait_for_event"
    APPROVAL = "approval"
    RESPOND = "respond"


WITH_TASK = frozenset(
    {
        StepType.NORMAL,
        StepType.AGENT,
        StepType.AGENT_LOOP,
        StepType.MAP,
        StepType.PLANNER,
    }
)
"""Types that a worker runs: they need a task name."""

CONFIGS: dict[StepType, type[Config]] = {
    StepType.AGENT_LOOP: LoopConfig,
    StepType.MAP: MapConfig,
    StepType.SLEEP: SleepConfig,
    StepType.SUB_WORKFLOW: ChildConfig,
    StepType.WAIT_FOR_EVENT: WaitConfig,
    StepType.APPROVAL: ApprovalConfig,
    StepType.PLANNER: PlannerConfig,
}
"""Types whose config is checked here; that of ``respond`` is the engine's to check."""


@final
class SkipIf(BaseModel):
    """Skips a step if a field of a parent's output compares as wanted.

    Attributes:
        step_id: the parent, one of the step's ``depends_on``: no other one is sure to have ended.
        field: a field of its output, which must be an object; at its top, no path.
        op: ``==``, ``!=``, ``<``, ``>``, ``<=`` or ``>=``.
        value: what it is compared with: a number, a text, or a boolean for equality only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step_id: str
    field: str
    op: Annotated[str, Field(pattern=r"^(==|!=|<|>|<=|>=)$")]
    value: str | float | bool | None = None


@final
class StepDef(BaseModel):
    """A step, with the keys that the engine knows; durations in nanoseconds.

    A key that it does not know is a mistake of whoever wrote it, and refused: the engine would
    ignore it, and a mistyped timeout would be none. (A config lets them through: later engines may
    have more there.)

    Attributes:
        id: its name in the workflow; becomes part of keys, subjects and message ids.
        task: the task type whose workers run it; empty for what the engine carries out itself.
        type: what it is.
        depends_on: ids of the steps that must be completed, skipped or recovered before it begins.
        timeout: how long an attempt may take, from its ``step.started`` on; 0 for no bound.
        retries: an older way to write a policy: so many, 5 s apart. ``retry`` goes before it.
        retry: its retry policy; None for the workflow's.
        config: what its type needs.
        skip_if: when it is left out.
        metadata: texts for whoever reads the definition; DagNats delivers them to nobody (H1).
        worker_group: only workers of this group get its tasks.
        on_failure: the step that takes a final failure up.
        compensate: the step that takes it back if a later one fails.
        rate_limit: how many tasks may be sent in a period.
        keyed_rate_limit: the same, for each value in the step's input. One of the two.
        max_task_concurrency: how many tasks of its type may go on at once, in all runs; 0 for any.
        singleton: nothing reads it; the local engine refuses it rather than seem to obey.
        required_capabilities: what the engine shall allow its task to ask for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Id = Field(pattern=KEY)
    task: IdOrEmpty = ""
    type: StepType = StepType.NORMAL
    depends_on: tuple[str, ...] = ()
    timeout: Count = 0
    retries: Count = 0
    retry: RetryPolicy | None = None
    config: dict[str, object] | None = None
    skip_if: SkipIf | None = None
    metadata: dict[str, str] | None = None
    worker_group: IdOrEmpty = ""
    on_failure: str = ""
    compensate: str = ""
    rate_limit: RateLimit | None = None
    keyed_rate_limit: KeyedRateLimit | None = None
    max_task_concurrency: int = Field(default=0, ge=0, le=MAX_CONCURRENCY)
    singleton: bool = False
    required_capabilities: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        """Check what makes the real engine end its process (contract H7).

        And what it takes and then cannot do: a map over nothing, a ``skip_if`` whose step may not
        have ended. The config is checked and then forgotten: what is sent is what was given, with
        the keys that we do not know.
        """
        if self.type in WITH_TASK and not self.task:
            raise ValueError(f"step {self.id!r} of type {self.type.value} needs a task")
        if self.type in CONFIGS:
            CONFIGS[self.type].model_validate(self.config or {})
        if self.rate_limit and self.keyed_rate_limit:
            raise ValueError(f"step {self.id!r} has both rate limits; give one")
        if self.type is StepType.MAP and len(self.depends_on) != 1:
            raise ValueError(f"map step {self.id!r} needs one dependency, whose list it maps")
        if self.skip_if and self.skip_if.step_id not in self.depends_on:
            raise ValueError(
                f"skip_if of step {self.id!r} names {self.skip_if.step_id!r}, which is not in its "
                "depends_on"
            )
        return self

    def to_wire(self) -> dict[str, object]:
        """Return the step as Go writes it: some keys always, the rest when they are set.

        So a definition that is read back from an engine and written again is the same one, and
        ``difference`` can compare what two of them mean.
        """
        written = self.model_dump(mode="json", exclude_defaults=True)
        if self.retry is not None:
            written["retry"] = self.retry.to_wire()
        if not self.metadata:
            written.pop("metadata", None)
        return {**written, "task": self.task, "timeout": self.timeout, "type": self.type.value}

    @property
    def is_limited(self) -> bool:
        """Whether its tasks may have to wait for others' or for their turn.

        Asked by the local engine before each dispatch: the ordinary step waits for nothing.
        """
        limits = (self.max_task_concurrency, self.rate_limit, self.keyed_rate_limit)
        return any(limits)

    @property
    def loop(self) -> LoopConfig:
        """The bounds of an ``agent_loop`` step.

        This and the next six are for steps of their own type only; made anew each time, since a
        frozen model keeps nothing. ``_is_whole`` has checked them, so they do not fail.
        """
        return LoopConfig.model_validate(self.config)

    @property
    def map(self) -> MapConfig:
        """The bounds of a ``map`` step."""
        return MapConfig.model_validate(self.config)

    @property
    def sleep(self) -> SleepConfig:
        """The length of a ``sleep`` step."""
        return SleepConfig.model_validate(self.config)

    @property
    def child(self) -> ChildConfig:
        """The workflow of a ``sub_workflow`` step."""
        return ChildConfig.model_validate(self.config)

    @property
    def wait(self) -> WaitConfig:
        """What a ``wait_for_event`` step waits for."""
        return WaitConfig.model_validate(self.config)

    @property
    def approval(self) -> ApprovalConfig:
        """Whom an ``approval`` step asks."""
        return ApprovalConfig.model_validate(self.config)

    @property
    def planner(self) -> PlannerConfig:
        """The bounds of a ``planner`` step."""
        return PlannerConfig.model_validate(self.config)
