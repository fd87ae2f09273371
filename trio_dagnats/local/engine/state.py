"""A run as the local engine keeps it: the snapshot that everybody reads, and the engine's own book.

The book stands beside the snapshot under a key of its own, which readers of runs ignore. It makes
the engine safe to kill: what is applied, and what a transition has to send, are one write.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trio_dagnats.errors import WireError
from trio_dagnats.wire.events import EventType
from trio_dagnats.wire.run import RunStatus, WorkflowRun
from trio_dagnats.wire.text import compact
from trio_dagnats.wire.workflow import WorkflowDef, told

BOOK = "local_engine"
ENDED = {
    RunStatus.COMPLETED: EventType.WORKFLOW_COMPLETED,
    RunStatus.FAILED: EventType.WORKFLOW_FAILED,
}
"""How a run's end is told to the history; a cancellation is told by whoever asked for it."""


class Kind(StrEnum):
    """What an effect sends; see ``messages``."""

    STEP_QUEUED = "step_queued"
    TASK = "task"
    TIMER = "timer"
    SLEEP_STARTED = "sleep_started"
    SLEEP_COMPLETED = "sleep_completed"
    STEP_TIMED_OUT = "step_timed_out"
    RUN_TIMED_OUT = "run_timed_out"
    RUN_ENDED = "run_ended"
    DEAD_LETTER = "dead_letter"


class Action(StrEnum):
    """What a timer does when it fires. The first four are the DagNats engine's."""

    SLEEP_COMPLETE = "sleep_complete"
    RETRY_BACKOFF = "retry_backoff"
    RETRY_AFTER = "retry_after"
    STEP_TIMEOUT = "step_timeout"
    LOOP_DELAY = "loop_delay"
    RUN_TIMEOUT = "run_timeout"


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
    """

    model_config = ConfigDict(frozen=True)

    kind: Kind
    msg_id: str
    step_id: str = ""
    action: Action | None = None
    number: int = 0
    nonce: str = ""
    duration_ms: int = 0


@final
class Timer(BaseModel):
    """A timer that is running: what it does, for which step and attempt."""

    model_config = ConfigDict(frozen=True)

    action: Action
    step_id: str = ""
    number: int = 0


@final
class Book(BaseModel):
    """What the engine knows about a run beside its snapshot.

    Attributes:
        definition: the workflow as it was when the run started. (The DagNats engine resolves it
            anew at every event, so that changing a workflow breaks its runs: contract H28.)
        applied: the history sequence up to which events are in the snapshot.
        cause: what the last transition answered: a history sequence or a timer's id.
        at_ns: when that was.
        outbox: what that transition has to send.
        timers: the running timers by message id.
        dispatched: the attempt number in each step's newest task message, 0 for a first one.
    """

    model_config = ConfigDict(frozen=True)

    definition: WorkflowDef
    applied: int = 0
    cause: str = ""
    at_ns: int = 0
    outbox: tuple[Effect, ...] = ()
    timers: Mapping[str, Timer] = Field(default_factory=dict)
    dispatched: Mapping[str, int] = Field(default_factory=dict)


@final
class RunState(BaseModel):
    """A run and its book."""

    model_config = ConfigDict(frozen=True)

    run: WorkflowRun
    book: Book

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
            raise WireError(f"run {run.run_id} is not the local engine's: {told(error)}") from error
        return cls(run=run, book=book)


class _WithBook(BaseModel):
    local_engine: Book
