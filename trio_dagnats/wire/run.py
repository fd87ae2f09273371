"""Snapshots of runs, as the engine keeps them (contract 10.6).

One JSON value in the bucket ``workflow_runs`` for each run, under ``run.<run>``. The engine writes
it, and everybody else only reads: the client (``get``, ``result``, lists), the worker (a run's
status, in ``worker.engine.facts``, by a smaller reader of its own), the command line.

A run::

    pending ──> running ──┬──> completed
       (it waits for      ├──> failed ....... no handler took it up
        ``max_runs``)     ├──> cancelled .... by somebody, a singleton, or its deadline
                          └──> compensated, or compensate_failed

A step::

    pending ──> queued ──> running ──┬──> completed
       │                             ├──> failed ──> recovered: its ``on_failure`` step completed
       └──> skipped                  └──> cancelled: with its run

A retry leaves a step ``running``. Base64 stands where the engine keeps bytes (a step's output),
plain JSON where it keeps JSON (a run's input, a map's outputs): each is read in its own way. All of
it must fit one message, so the outputs of a run have a bound together (contract H29).
"""

import base64
import json
from enum import StrEnum
from typing import final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trio_dagnats.errors import WireError
from trio_dagnats.wire.definitions.steps import StepDef
from trio_dagnats.wire.definitions.workflow import WorkflowDef, validation_text
from trio_dagnats.wire.text import MISREAD

ZERO_TIME = "0001-01-01T00:00:00Z"
"""Go's zero time, written for a loop that has not started."""


@final
class RunStatus(StrEnum):
    """How a run stands; the first two go on, the others are final."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    COMPENSATED = "compensated"
    COMPENSATE_FAILED = "compensate_failed"

    @property
    def is_terminal(self) -> bool:
        """Whether a run of this status is over: no event changes it any more."""
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
    """One instance of a map step; its output is inline JSON.

    Its place in the tuple is the item's place in the list, and the end of its step id
    (``<step>.map.<index>``).
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    status: StepStatus = StepStatus.PENDING
    output: object = None
    error: str = ""


@final
class StepState(BaseModel):
    """A step of a run; ``output`` is the base64 of its JSON, as on the wire.

    Attributes:
        status: how it stands.
        attempts: the highest attempt number that was told; a queued step may have 1 already.
        iterations: of an agent loop, how many were continued.
        loop_started_at: when its first iteration was continued, RFC 3339; else Go's zero time.
        output: base64 of JSON, empty for none. See :meth:`value`.
        error: why it failed, empty if it did not.
        map_instances: of a map, one entry for each item.
        wake_at: of a sleep, when it ends, RFC 3339.
        child_run_id: of a sub-workflow, its run.
        dispatch_nonce: the proof that its task can show to the engine's control plane.
    """

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
        """Return the step as Go writes it: three keys always, the rest when they are set.

        For the local engine, whose snapshots the readers of the other engine must be able to read.
        """
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
    """A run's snapshot. Times are RFC 3339, empty where there is none.

    What an engine writes beside these keys is left out, so that a newer one can be read.

    Attributes:
        run_id: its id.
        workflow_id: the name of its workflow.
        status: how it stands.
        steps: the states of its steps, by their ids.
        input: what it was started with, as JSON gives it.
        created_at: when it was started.
        completed_at: when it ended, however it did.
        deadline: when it will be cancelled, if its workflow has a timeout.
        root_run_id: the run at the top, itself if it was started by nobody's step.
        parent_run_id: the run whose step started it, empty for none.
        parent_step_id: that step.
        priority_offset: seconds by which it goes before others that wait for ``max_runs``.
        singleton_key: the lock that it holds, empty for none.
        trace_parent: the W3C trace that its start belonged to.
        dynamic_steps: steps that a planner has added.
    """

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
            raise WireError(f"not a run: {validation_text(error)}") from error

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
