"""Workflow definitions (contract 10.1), checked as a whole before they are sent anywhere."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Self, final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trio_dagnats.errors import UsageError
from trio_dagnats.wire.definitions.configs import (
    KEY,
    STEP_ID,
    CancelOn,
    PriorityConfig,
    SingletonConfig,
)
from trio_dagnats.wire.definitions.retry import RetryPolicy, legacy
from trio_dagnats.wire.definitions.steps import StepDef, StepType
from trio_dagnats.wire.ids import Id
from trio_dagnats.wire.text import compact


@final
class ConcurrencyLimits(BaseModel):
    """How many runs of a workflow, and steps of a run, may go on at once; 0 for no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_runs: int = Field(default=0, ge=0)
    max_steps: int = Field(default=0, ge=0, le=1000)


@final
class WorkflowDef(BaseModel):
    """A workflow, with the keys that the engine knows; durations in nanoseconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Id = Field(pattern=KEY)
    version: str = "1"
    steps: tuple[StepDef, ...] = Field(min_length=1)
    default_retry: RetryPolicy | None = None
    concurrency: ConcurrencyLimits | None = None
    timeout: int = Field(default=0, ge=0, strict=True)
    input_schema: dict[str, object] | None = None
    output_schema: dict[str, object] | None = None
    aux_steps: dict[str, bool] | None = None
    idempotency_key: str = ""
    sticky: str = ""
    priority: PriorityConfig | None = None
    cancel_on: tuple[CancelOn, ...] = Field(default=(), max_length=5)
    singleton: SingletonConfig | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        ids = [step.id for step in self.steps]
        for step_id, count in Counter(ids).items():
            if count > 1:
                raise ValueError(f"two steps have the id {step_id!r}; give each its own")
        self._check_ids()
        known = set(ids)
        for step in self.steps:
            for other in (*step.depends_on, step.on_failure, step.compensate):
                if other and other not in known:
                    raise ValueError(f"step {step.id!r} names {other!r}, which is no step")
        self._check_aux()
        try:
            TopologicalSorter({s.id: s.depends_on for s in self.steps}).prepare()
        except CycleError as error:
            raise ValueError(f"steps depend on each other in a circle: {error.args[1]}") from None
        return self

    def _check_ids(self) -> None:
        """Only a planner's steps have a dot in their ids: before it stands the planner's."""
        planners = {s.id for s in self.steps if s.type is StepType.PLANNER}
        for step in self.steps:
            parent, dot, own = step.id.partition(".")
            if not re.match(STEP_ID, own if dot else parent) or (dot and parent not in planners):
                raise ValueError(f"the id {step.id!r} must be letters, digits, '-' and '_' only")

    def _check_aux(self) -> None:
        """A handler step with dependencies would never run as one (contract 10.2)."""
        for step_id in self.auxiliary:
            if self.step(step_id).depends_on:
                raise ValueError(
                    f"step {step_id!r} is a failure or compensation handler and must not have "
                    "depends_on"
                )

    @cached_property
    def auxiliary(self) -> frozenset[str]:
        """Steps that run only as failure or compensation handlers."""
        named = {s.on_failure for s in self.steps} | {s.compensate for s in self.steps}
        return frozenset(named - {""})

    def step(self, step_id: str) -> StepDef:
        """Return a step.

        Raises:
            KeyError: there is none of that id.
        """
        return self.by_id[step_id]

    @cached_property
    def by_id(self) -> Mapping[str, StepDef]:
        """All steps by their ids."""
        return {step.id: step for step in self.steps}

    @cached_property
    def dependents(self) -> Mapping[str, Sequence[StepDef]]:
        """The steps that depend on each step, in the definition's order."""
        found: dict[str, list[StepDef]] = {step.id: [] for step in self.steps}
        for step in self.steps:
            for other in step.depends_on:
                found[other].append(step)
        return found

    def retry_of(self, step: StepDef) -> RetryPolicy | None:
        """Return the policy in force for a step: its own, the workflow's, or its ``retries``."""
        if step.retry is not None:
            return step.retry
        if self.default_retry is not None:
            return self.default_retry
        return legacy(step.retries) if step.retries else None

    def to_wire(self) -> dict[str, object]:
        """Return the definition as it is sent.

        ``aux_steps`` names the handlers of failures and compensations: without it the DagNats
        engine would run them at the start.
        """
        written = self.model_dump(mode="json", exclude_defaults=True, by_alias=True)
        written["version"] = self.version
        written["steps"] = [step.to_wire() for step in self.steps]
        if self.default_retry is not None:
            written["default_retry"] = self.default_retry.to_wire()
        if self.auxiliary:
            written["aux_steps"] = dict.fromkeys(sorted(self.auxiliary), True)
        return written

    def to_bytes(self) -> bytes:
        """Write the definition as it is sent."""
        return compact(self.to_wire())

    @classmethod
    def read(cls, source: bytes | Mapping[str, object]) -> "WorkflowDef":
        """Read a definition.

        Raises:
            UsageError: it is none; the text names the place and the mistake.
        """
        try:
            if isinstance(source, bytes):
                return cls.model_validate_json(source)
            return cls.model_validate(source)
        except ValidationError as error:
            raise UsageError(f"not a workflow: {told(error)}") from error


def told(error: ValidationError) -> str:
    """Say where a definition is wrong, and how; the first few mistakes."""
    return "; ".join(
        f"{_place(found['loc'])}{found['msg'].removeprefix('Value error, ')}"
        for found in error.errors(include_url=False, include_input=False)[:3]
    )


def _place(loc: Sequence[str | int]) -> str:
    place = ".".join(map(str, loc))
    hint = ""
    if place.endswith(("timeout", "delay", "duration")):
        hint = " (durations are whole nanoseconds; the Workflow builder takes seconds)"
    return f"{place}{hint}: " if place else ""
