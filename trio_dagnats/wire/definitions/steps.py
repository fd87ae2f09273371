"""Steps of a workflow (contract 10.2)."""

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


@final
class StepType(StrEnum):
    """What a step is."""

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
    """Skips a step if a field of a parent's output compares as wanted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step_id: str
    field: str
    op: Annotated[str, Field(pattern=r"^(==|!=|<|>|<=|>=)$")]
    value: str | float | bool | None = None


@final
class StepDef(BaseModel):
    """A step, with the keys that the engine knows; durations in nanoseconds."""

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
        """Check what makes the real engine end its process (contract H7)."""
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
        """Return the step as Go writes it: some keys always, the rest when they are set."""
        written = self.model_dump(mode="json", exclude_defaults=True)
        if self.retry is not None:
            written["retry"] = self.retry.to_wire()
        if not self.metadata:
            written.pop("metadata", None)
        return {**written, "task": self.task, "timeout": self.timeout, "type": self.type.value}

    @property
    def is_limited(self) -> bool:
        """Whether its tasks may have to wait for others' or for their turn."""
        limits = (self.max_task_concurrency, self.rate_limit, self.keyed_rate_limit)
        return any(limits)

    @property
    def loop(self) -> LoopConfig:
        """The bounds of an ``agent_loop`` step."""
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
