"""Snapshots of runs, as the engine keeps them (contract 10.6)."""

import base64
import json
from enum import StrEnum
from typing import final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trio_dagnats.errors import WireError
from trio_dagnats.wire.definitions.steps import StepDef
from trio_dagnats.wire.definitions.workflow import WorkflowDef, told
from trio_dagnats.wire.text import MISREAD

ZERO_TIME = "0001-01-01T00:00:00Z"
"""Go's zero time, written for a loop that has not started."""


@final
class RunStatus(StrEnum):
    """How a run stands."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    COMPENSATED = "compensated"
    COMPENSATE_FAILED = "compensate_failed"

    @property
    def is_terminal(self) -> bool:
        """Whether a run of this status is over."""
        return self not in {RunStatus.PENDING, RunStatus.RUNNING}


@final
class StepStatus(StrEnum):
    """How a step stands."""

    PENDING = "pending"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    RECOVERED = "recovered"

    @property
    def is_done(self) -> bool:
        """Whether dependents may go on."""
        return self in {StepStatus.COMPLETED, StepStatus.SKIPPED, StepStatus.RECOVERED}


@final
class MapInstance(BaseModel):
    """One instance of a map step; its output is inline JSON."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    status: StepStatus = StepStatus.PENDING
    output: object = None
    error: str = ""


@final
class StepState(BaseModel):
    """A step of a run; ``output`` is the base64 of its JSON, as on the wire."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    status: StepStatus = StepStatus.PENDING
    attempts: int = 0
    iterations: int = 0
    loop_started_at: str = ZERO_TIME
    output: str = ""
    error: str = ""
    map_instances: tuple[MapInstance, ...] = ()
    wake_at: str = ""
    child_run_id: str = ""
    dispatch_nonce: str = ""

    def to_wire(self) -> dict[str, object]:
        """Return the step as Go writes it: three keys always, the rest when they are set."""
        written = self.model_dump(mode="json", exclude_defaults=True)
        always = {
            "status": self.status.value,
            "attempts": self.attempts,
            "loop_started_at": self.loop_started_at,
        }
        return {**always, **written}

    def raw_output(self) -> bytes:
        """Return the output's JSON, empty if there is none.

        Raises:
            WireError: it is no base64.
        """
        try:
            return base64.b64decode(self.output, validate=True)
        except ValueError as error:
            raise WireError(f"an output that is no base64: {self.output[:40]!r}") from error

    def value(self) -> object:
        """Return the output, None if there is none.

        Raises:
            WireError: it is no base64 of JSON.
        """
        raw = self.raw_output()
        try:
            return json.loads(raw) if raw else None
        except MISREAD as error:
            raise WireError(f"an output that is no JSON: {raw[:40]!r}") from error


@final
class WorkflowRun(BaseModel):
    """A run's snapshot. Times are RFC 3339."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_id: str
    workflow_id: str
    status: RunStatus
    steps: dict[str, StepState] = Field(default_factory=dict)
    input: object = None
    created_at: str = ""
    completed_at: str = ""
    deadline: str = ""
    root_run_id: str = ""
    parent_run_id: str = ""
    parent_step_id: str = ""
    priority_offset: int = 0
    singleton_key: str = ""
    trace_parent: str = ""
    dynamic_steps: tuple[StepDef, ...] = ()

    def to_wire(self) -> dict[str, object]:
        """Return the snapshot as Go writes it."""
        apart = {"steps", "dynamic_steps"}
        written = self.model_dump(mode="json", exclude_defaults=True, exclude=apart)
        if self.dynamic_steps:
            written["dynamic_steps"] = [step.to_wire() for step in self.dynamic_steps]
        steps = {step_id: state.to_wire() for step_id, state in self.steps.items()}
        return {**written, "steps": steps}

    @classmethod
    def read(cls, raw: bytes) -> "WorkflowRun":
        """Read a snapshot.

        Raises:
            WireError: it is none.
        """
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            raise WireError(f"not a run: {told(error)}") from error

    def failed_step(self) -> tuple[str, str]:
        """Return the step that ended the run and its error, two empty strings if none did."""
        for step_id, state in self.steps.items():
            if state.status is StepStatus.FAILED:
                return step_id, state.error
        return "", ""

    def output(self, definition: WorkflowDef) -> object:
        """Return what the steps give that nobody depends on.

        One such step: its output. Several: an object of them by step id.
        """
        steps = (*definition.steps, *self.dynamic_steps)
        others = {other for step in steps for other in step.depends_on} | definition.auxiliary
        last = dict.fromkeys(step.id for step in steps if step.id not in others)
        outputs = {i: self.steps[i].value() for i in last if i in self.steps}
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs
