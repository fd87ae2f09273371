"""A run as the local engine keeps it: the snapshot that everybody reads, and the engine's own book.

The book stands beside the snapshot under a key of its own, which readers of runs ignore. It makes
the engine safe to kill: what is applied, and what a transition has to send, are one write.

Who may write: nobody. All models are frozen; the rules change a ``Draft`` and make a new state
of it, and only ``runs.Runs`` (the shell) puts one into the bucket, with the revision it was
loaded at.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trio_dagnats.errors import WireError
from trio_dagnats.wire.definitions.configs import Match
from trio_dagnats.wire.definitions.steps import StepDef
from trio_dagnats.wire.definitions.workflow import WorkflowDef, validation_text
from trio_dagnats.wire.events import EventType
from trio_dagnats.wire.run import RunStatus, WorkflowRun
from trio_dagnats.wire.text import compact, whole

BOOK = "local_engine"
MAP_MARK = ".map."
CANCEL = "__cancel_"
"""What an event that cancels a run is for, among those that steps wait for: this and a number."""
ENDED = {
    RunStatus.COMPLETED: EventType.WORKFLOW_COMPLETED,
    RunStatus.FAILED: EventType.WORKFLOW_FAILED,
    RunStatus.COMPENSATED: EventType.WORKFLOW_FAILED,
    RunStatus.COMPENSATE_FAILED: EventType.WORKFLOW_FAILED,
}
"""How a run's end is told to the history; a cancellation is told by whoever asked for it.

The DagNats engine tells nobody of a compensated run; whoever waits for it would have to poll."""


def instance_id(step_id: str, index: int) -> str:
    """Return the id of an instance of a map step."""
    return f"{step_id}{MAP_MARK}{index}"


def split_instance(step_id: str) -> tuple[str, int] | None:
    """Read an instance's id; None if it is a step's own."""
    name, mark, index = step_id.rpartition(MAP_MARK)
    number = whole(index)
    return (name, number) if mark and number is not None else None


class Kind(StrEnum):
    """What an effect sends; see ``messages``."""

    STEP_QUEUED = "step_queued"
    TASK = "task"
    MAP_TASKS = "map_tasks"
    TIMER = "timer"
    SLEEP_STARTED = "sleep_started"
    SLEEP_COMPLETED = "sleep_completed"
    STEP_TIMED_OUT = "step_timed_out"
    RUN_TIMED_OUT = "run_timed_out"
    RUN_ENDED = "run_ended"
    DEAD_LETTER = "dead_letter"
    SPAWN = "spawn"
    PARENT_TOLD = "parent_told"
    CHILD_CANCELLED = "child_cancelled"
    RUN_SKIPPED = "run_skipped"
    OTHER_CANCELLED = "other_cancelled"
    WAIT_STARTED = "wait_started"
    WAIT_TIMED_OUT = "wait_timed_out"
    WAITER = "waiter"
    WAITER_GONE = "waiter_gone"
    APPROVAL_ASKED = "approval_asked"
    APPROVAL_TOKEN = "approval_token"  # noqa: S105 - a kind, no secret
    APPROVAL_NOTICE = "approval_notice"
    APPROVAL_EXPIRED = "approval_expired"
    APPROVAL_GONE = "approval_gone"
    MATERIALIZED = "materialized"
    SLOT_WANTED = "slot_wanted"
    SLOT_FREED = "slot_freed"
    RATE_WANTED = "rate_wanted"
    LOCK_FREED = "lock_freed"


class Action(StrEnum):
    """What a timer does when it fires. The names of the DagNats engine's, and some of our own.

    A slot is a timer without a time: it fires when a run or a task of others has ended.
    """

    SLEEP_COMPLETE = "sleep_complete"
    RETRY_BACKOFF = "retry_backoff"
    RETRY_AFTER = "retry_after"
    STEP_TIMEOUT = "step_timeout"
    RATE_RETRY = "rate_retry"
    WAIT_TIMEOUT = "wait_timeout"
    APPROVAL_TIMEOUT = "approval_timeout"
    LOOP_DELAY = "loop_delay"
    RUN_TIMEOUT = "run_timeout"
    RUN_SLOT = "run_slot"
    TASK_SLOT = "task_slot"


@final
class Effect(BaseModel):
    """Something to send, small enough to be stored with the run: its body is made from the run.

    Attributes:
        kind: what to send.
        msg_id: ``Nats-Msg-Id``.
        step_id: the step, or the instance of a map step.
        action: for timers.
        number: the attempt, for what carries one.
        nonce: for tasks.
        duration_ms: for timers.
        text: what else the kind needs: a key, a child's id, an error.
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind
    msg_id: str
    step_id: str = ""
    action: Action | None = None
    number: int = 0
    nonce: str = ""
    duration_ms: int = 0
    text: str = ""


@final
class Timer(BaseModel):
    """A timer that is running: what it does, for which step and attempt.

    Attributes:
        action: what it does.
        step_id: the step, or the instance of a map step; empty for the run.
        number: the attempt.
        task_id: the message id of the task that it lets go, for slots and rate limits.
        due_ns: when it fires, 0 if nobody knows.
    """

    model_config = ConfigDict(frozen=True)

    action: Action
    step_id: str = ""
    number: int = 0
    task_id: str = ""
    due_ns: int = 0


@final
class EngineRecord(BaseModel):
    """What the engine knows about a run beside its snapshot.

    Attributes:
        definition: the workflow as it was when the run started, with the steps that planners have
            added. (The DagNats engine resolves it anew at every event, so that changing a workflow
            breaks its runs: contract H28.)
        applied: the history sequence up to which events are in the snapshot.
        causes: what the last transition answered: history sequences and timers' ids.
        at_ns: when that was.
        outbox: what that transition has to send.
        timers: the running timers by message id.
        dispatched: the attempt number in each step's newest task message, 0 for a first one.
        handling: for each failure or compensation handler that runs or has run, the step that it
            was last started for.
        undone: the steps whose compensation has begun, in that order; the last one's may be going.
        trigger: the step whose failure made the run compensate, empty if none did.
        slots: the ids under which the run holds slots or waits for them.
    """

    model_config = ConfigDict(frozen=True)

    definition: WorkflowDef
    applied: int = 0
    causes: tuple[str, ...] = ()
    at_ns: int = 0
    outbox: tuple[Effect, ...] = ()
    timers: Mapping[str, Timer] = Field(default_factory=dict)
    dispatched: Mapping[str, int] = Field(default_factory=dict)
    handling: Mapping[str, str] = Field(default_factory=dict)
    undone: tuple[str, ...] = ()
    trigger: str = ""
    slots: tuple[str, ...] = ()


@final
class RunState(BaseModel):
    """A run and its book."""

    model_config = ConfigDict(frozen=True)

    run: WorkflowRun
    book: EngineRecord

    def step_and_index(self, who: str) -> tuple[StepDef, int | None]:
        """Return the step that an id means, and the index if it is an instance of a map."""
        instance = split_instance(who)
        name, index = instance or (who, None)
        return self.book.definition.step(name), index

    def waits_for(self, who: str) -> tuple[str, Match]:
        """Return the event that a step waits for, or that cancels the run, and how it matches."""
        definition = self.book.definition
        if who.startswith(CANCEL):
            found = definition.cancel_on[int(who.removeprefix(CANCEL))]
            return found.event, found.match
        return definition.step(who).wait.event, definition.step(who).wait.match

    def to_bytes(self) -> bytes:
        """Write both as one value of the bucket ``workflow_runs``."""
        book = self.book.model_dump(mode="json", exclude_defaults=True, exclude={"definition"})
        book["definition"] = self.book.definition.to_wire()
        return compact({**self.run.to_wire(), BOOK: book})

    @classmethod
    def read(cls, raw: bytes) -> "RunState":
        """Read a stored run.

        Raises:
            WireError: it is none, or another engine's.
        """
        run = WorkflowRun.read(raw)
        try:
            book = _WithBook.model_validate_json(raw).local_engine
        except ValidationError as error:
            raise WireError(
                f"run {run.run_id} is not the local engine's: {validation_text(error)}"
            ) from error
        return cls(run=run, book=book)


class _WithBook(BaseModel):
    local_engine: EngineRecord
