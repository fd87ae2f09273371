"""What each type of step needs beside its task (contract 10.3); durations in nanoseconds.

Strict where the engine is: a duration given as a text or a float is refused by it, so it is refused
here, where the user still sees his own line. Bounds are the engine's own.

A *dot path* leads through objects: ``a.b`` is the member ``b`` of the member ``a``.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self, final

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trio_dagnats.wire.ids import Id
from trio_dagnats.wire.text import NS

MAX_SLEEP_NS = 365 * 86_400 * NS
MAX_APPROVAL_NS = 168 * 3600 * NS
"""A year and a week. The second one is how long the engine keeps an approval's token."""
STEP_ID = r"^[A-Za-z0-9_-]+$"
"""Ids are parts of keys, subjects and message ids (contract 10.2)."""
KEY = r"^[-/_=a-zA-Z0-9]+(\.[-/_=a-zA-Z0-9]+)*$"
"""A name that is a key of a bucket, or part of one."""

Count = Annotated[int, Field(ge=0, strict=True)]
Positive = Annotated[int, Field(gt=0, strict=True)]


class Config(BaseModel):
    """The base of all configs: keys of later engines are let through."""

    model_config = ConfigDict(frozen=True, extra="ignore")


@final
class LoopConfig(Config):
    """Bounds of an agent loop.

    Attributes:
        max_iterations: how often it runs at the most; the last one must complete.
        max_duration: nanoseconds from its first continue on, looked at with each later one.
        loop_delay: nanoseconds between a continue and the next iteration.
    """

    max_iterations: int = Field(gt=0)
    max_duration: Count = 0
    loop_delay: Count = 0


@final
class MapConfig(Config):
    """Bounds of a map: a longer list fails the step before any item has run."""

    max_items: int = Field(ge=1, le=10_000)


@final
class SleepConfig(Config):
    """How long a sleep lasts: exactly one of the three."""

    duration: int | None = Field(default=None, gt=0, le=MAX_SLEEP_NS, strict=True)
    cron: str | None = None
    until_input_path: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = [self.duration, self.cron, self.until_input_path]
        if sum(value is not None for value in given) != 1:
            raise ValueError("give exactly one of duration, cron and until_input_path")
        return self


@final
class ChildConfig(Config):
    """Which workflow a ``sub_workflow`` step runs, and whether it waits for its end.

    Detached, the step has completed as soon as the run is started, and gives its id.
    """

    workflow: str = Field(pattern=KEY)
    detach: bool = False


@final
class Match(Config):
    """Which events are waited for: a path in the event equals a value of the run.

    Attributes:
        left: a dot path in the event.
        op: ``eq``, the engine's only one.
        right: ``input.<path>`` or ``step.<id>.output.<path>``.
    """

    left: str = Field(min_length=1)
    op: Literal["eq"]
    right: str = Field(pattern=r"^(input\..+|step\.[^.]+\.output\..+)$")


@final
class CancelOn(Config):
    """Which events cancel a run of a workflow; ``timeout`` is not used by the engine."""

    event: str = Field(pattern=KEY)
    match: Match
    timeout: Count = 0

    @model_validator(mode="after")
    def _compares_with_the_input(self) -> Self:
        """Refuse what the DagNats engine only logs: no event would ever cancel the run."""
        if not self.match.right.startswith("input."):
            raise ValueError(
                f"match.right must be input.<path> here, not {self.match.right!r}: when the run "
                "begins, no step has an output"
            )
        return self


@final
class SingletonConfig(Config):
    """One run of a workflow at a time, or one for each value that stands at ``key`` in the input.

    Attributes:
        mode: what becomes of a second one: ``skip`` does not start it, ``cancel`` cancels the
            first.
        key: a dot path in the input, empty for none.
    """

    mode: Literal["skip", "cancel"]
    key: str = ""


Offset = Annotated[int, Field(ge=-600, le=600, strict=True)]
"""Seconds that a run which has to wait goes ahead of the others, or, below zero, behind them."""


@final
class PriorityConfig(Config):
    """How a run's place among those that wait for ``max_runs`` is shifted.

    Attributes:
        key: a dot path in the input.
        rules: the offsets of the values that may stand there.
        default_offset: that of other values.
    """

    key: str = Field(min_length=1)
    rules: Mapping[str, Offset] = Field(min_length=1, max_length=20)
    default_offset: Offset = 0


@final
class WaitConfig(Config):
    """What a ``wait_for_event`` step waits for, and for how long."""

    event: str = Field(pattern=KEY)
    match: Match
    timeout: Positive


@final
class ApprovalConfig(Config):
    """Whom an ``approval`` step asks, and for how long it waits."""

    subject: Id
    timeout: Positive = Field(le=MAX_APPROVAL_NS)
    description: str = ""
    metadata: Mapping[str, str] = Field(default_factory=dict)


@final
class PlannerConfig(Config):
    """Bounds of the steps that a ``planner`` step may add to its run; 0 and empty for none."""

    max_steps: int = Field(ge=1, le=100)
    max_depth: int = Field(default=0, ge=0, le=10)
    allowed_tasks: tuple[str, ...] = ()


@final
class RateLimit(Config):
    """At most ``limit`` tasks of a type in any ``period``."""

    limit: Positive
    period: Positive


@final
class KeyedRateLimit(Config):
    """The same for each value that stands at the dot path ``key`` in the step's input."""

    key: str = Field(min_length=1)
    limit: Positive
    period: Positive
    units: Positive

    @model_validator(mode="after")
    def _can_ever_go(self) -> Self:
        if self.units > self.limit:
            raise ValueError(f"units {self.units} are more than the limit {self.limit}")
        return self
