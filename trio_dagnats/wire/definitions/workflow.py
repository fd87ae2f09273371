"""Workflow definitions (contract 10.1), checked as a whole before they are sent anywhere.

Why so much is checked here: the DagNats engine checks little, and some of what it does not check
ends its process (contract H7), or lets a run wait for ever. Field by field pydantic checks; between
the steps this does:

=================================  ====================================================
what must hold                     because
=================================  ====================================================
each id once                       a snapshot keeps one state under an id
ids of letters, digits, ``-_``     they are parts of keys, subjects and message ids
each name of a step exists         a dependency on nobody never ends
handlers depend on nothing         with dependencies they would not run as handlers
no circle                          none of its steps would ever be ready
=================================  ====================================================

A dot in an id is a planner's: ``plan.fetch`` is the step ``fetch`` that ``plan`` has added.

Read (``read``) from users, files and buckets, so the same text must serve a person: the error names
the place and the remedy. Written (``to_wire``) to the engine's API, and compared (``difference``).
"""

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
    """How many runs of a workflow, and steps of a run, may go on at once; 0 for no limit.

    Runs beyond ``max_runs`` are stored as pending and begin when another one ends; steps beyond
    ``max_steps`` stay pending in their run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_runs: int = Field(default=0, ge=0)
    max_steps: int = Field(default=0, ge=0, le=1000)


@final
class WorkflowDef(BaseModel):
    """A workflow, with the keys that the engine knows; durations in nanoseconds.

    Attributes:
        name: its key among the definitions, and the ``workflow_id`` of its runs.
        version: for people; nothing reads it.
        steps: at least one, in any order.
        default_retry: the policy of steps that have none.
        concurrency: bounds on runs and steps at once.
        timeout: how long a run may take; 0 for no bound.
        input_schema: what an input must look like: types, required keys, properties.
        output_schema: the same of the output; not enforced.
        aux_steps: the handlers of failures and compensations. Filled in when it is written.
        idempotency_key: a dot path in the input; starts with the same value there are one run.
        sticky: ``soft`` or ``hard``: all steps of a run go to one worker. Empty for any.
        priority: how runs that wait for ``max_runs`` are ordered.
        cancel_on: events that cancel a run; five at most.
        singleton: one run at a time.
    """

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
        """Check the steps against each other, names first: the graph is built of them."""
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
        """Steps that run only as failure or compensation handlers.

        By who names them, not by ``aux_steps``: that is what an engine is told, and a definition
        from elsewhere may lack it. Computed once: the model is frozen, and keeps it all the same.
        """
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
        """Return the policy in force for a step: its own, the workflow's, or its ``retries``.

        In this order, so a workflow's policy goes before a step's older key. None: a failure is
        final at once.
        """
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

        Args:
            source: JSON as bytes, or what a JSON reader has made of it.

        Raises:
            UsageError: it is none; the text names the place and the mistake.
        """
        try:
            if isinstance(source, bytes):
                return cls.model_validate_json(source)
            return cls.model_validate(source)
        except ValidationError as error:
            raise UsageError(f"not a workflow: {validation_text(error)}") from error


def validation_text(error: ValidationError) -> str:
    """Say where a definition is wrong, and how; the first few mistakes.

    Without the input that pydantic would show: it may be large, and may hold what nobody should
    read in a log.
    """
    return "; ".join(
        f"{_place(found['loc'])}{found['msg'].removeprefix('Value error, ')}"
        for found in error.errors(include_url=False, include_input=False)[:3]
    )


def _place(loc: Sequence[str | int]) -> str:
    """Say where a mistake stands, with a hint at the one that everybody makes: seconds."""
    place = ".".join(map(str, loc))
    hint = ""
    if place.endswith(("timeout", "delay", "duration")):
        hint = " (durations are whole nanoseconds; the Workflow builder takes seconds)"
    return f"{place}{hint}: " if place else ""
