"""What a run's history says about a dispatch (design 8.1, 8.2, 8.6).

Only what was stored after the task message speaks about it; the caller reads from there on.

====================================  =======================================================
an event of the run                   says
====================================  =======================================================
``workflow.cancelled`` and its kin    the run has ended, whatever the step is
``step.started``, our number          a delivery of this dispatch has begun
``step.failed`` without a worker      the engine's own: the step was timed out
``step.completed``, ``step.failed``   the outcome, if the number is ours and a worker says it
``step.continue``                     the outcome, if its id names our dispatch or iteration
anything else, or what is unreadable  nothing
====================================  =======================================================

Why not a delivery count: it also counts deliveries that nobody has worked on (contract H39). Why
not the snapshot: it lags behind the history, and keeps no dispatch.

Called on a redelivery (``worker.execution.triage``), and after a conflict or a duplicate, with what
is new only (``worker.engine.settle``).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, final

from trio_dagnats.attempt.note import Note
from trio_dagnats.errors import WireError
from trio_dagnats.wire.events import EventType, HistoryEvent, parse_event
from trio_dagnats.wire.names import MSG_ID
from trio_dagnats.wire.task import Task

MAX_STARTS = 5
"""Starts that got no further, letting go aside, after which a task counts as killing its workers.

A start gets further when all of the attempt begins to wait (who waits kills nobody), when it stores
an item of a map, and when it stores a checkpoint that is another one than before.
"""
MAX_CHANCES = 20
"""Checkpoints that count so: a task that writes one and then kills its worker shall end, too."""

_RUN_ENDS = frozenset(
    {
        EventType.WORKFLOW_CANCELLED,
        EventType.WORKFLOW_COMPLETED,
        EventType.WORKFLOW_FAILED,
    }
)


class HistoryRecord(Protocol):
    """A stored event."""

    @property
    def sequence(self) -> int:
        """Its sequence in the history."""
        ...

    @property
    def body(self) -> bytes:
        """Its JSON."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers."""
        ...


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What has happened to a dispatch.

    Attributes:
        settled: the type of its outcome, empty if there is none.
        starts: how often it was started.
        last_sequence: the newest history sequence that was read, 0 if there was nothing.
        run_ended: the type of the event that ended the run, empty if it has not ended.
        timed_out: the engine failed the attempt itself, by the step's timeout.
    """

    settled: str = ""
    starts: int = 0
    last_sequence: int = 0
    run_ended: str = ""
    timed_out: bool = False


def read_past(records: Iterable[HistoryRecord], task: Task, dispatch: int) -> Past:
    """Read what the records, oldest first, say about the dispatch of a task."""
    settled, run_ended, starts, last, timed_out = "", "", 0, 0, False
    for record in records:
        last = record.sequence
        try:
            event = parse_event(record.body)
        except WireError:
            continue
        if event.type in _RUN_ENDS:
            run_ended = event.type
        if event.step_id != task.step_id:
            continue
        if event.type == EventType.STEP_STARTED and event.attempt_number == task.number:
            starts += 1
        elif _is_timeout(event, task):
            timed_out = True
        elif _is_outcome(event, record.headers.get(MSG_ID, ""), task, dispatch):
            settled = event.type
    return Past(
        settled=settled,
        starts=starts,
        last_sequence=last,
        run_ended=run_ended,
        timed_out=timed_out,
    )


def killed_too_often(past: Past, note: Note) -> bool:
    """Say whether the task was started too often without an outcome, a hand-back or progress."""
    return past.starts - note.let_go - note.forgiven >= MAX_STARTS


def too_often_text(past: Past, note: Note) -> str:
    """Return the error of a task that kills its workers."""
    return (
        f"started {past.starts} times without an outcome, {note.let_go} of them handed back, the "
        f"last {past.starts - note.let_go - note.forgiven} without getting further: the handler "
        "ends its worker's process, or loses its lease, every time"
    )


def _is_timeout(event: HistoryEvent, task: Task) -> bool:
    """Say whether the engine has given this attempt up; it alone publishes without a worker."""
    return (
        event.type == EventType.STEP_FAILED
        and not event.worker_id
        and event.attempt_number == task.number
    )


def _is_outcome(event: HistoryEvent, msg_id: str, task: Task, dispatch: int) -> bool:
    """Say whether an event of the task's step is the outcome of this dispatch.

    A continue names its dispatch (or, from a Go worker, at least its iteration); the other
    outcomes name the attempt, or leave it out on a first one (contract 4.2).
    """
    if event.type == EventType.STEP_CONTINUE:
        ours = f"{task.run_id}.{task.step_id}.continue."
        iteration, _, source = msg_id.removeprefix(ours).partition(".")
        return source == str(dispatch) or (
            iteration == str(task.iteration) and len(source) > len(str(dispatch)) + 3
        )
    if event.type not in {EventType.STEP_COMPLETED, EventType.STEP_FAILED}:
        return False
    return bool(event.worker_id) and (event.attempt_number or 0) in {task.attempt, task.number}
