"""What happened in a run, step by step: attempts with their times, from snapshot and history. Pure.

The snapshot knows how steps stand, the history when they came to; neither knows both.

::

    history   step.started n=1 ... step.failed n=1 ... step.started n=2 ... step.completed
                     └──────── attempt 1 ────┘                └─── attempt 2 ───┘
    snapshot  the step: completed, its output, its number of attempts

Events of one attempt are recognised by their step and the order: an outcome ends what has
started last. A second ``step.started`` with the same number is a redelivery of the same attempt;
one with another number begins another attempt.

What is missing is left open and never guessed: a start that the server dropped as a duplicate gives
an attempt without a time, and an attempt that goes on when the run ends is ``unfinished``.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import final

from trio_dagnats.errors import WireError
from trio_dagnats.wire.events import EventType, HistoryEvent
from trio_dagnats.wire.run import StepState, WorkflowRun
from trio_dagnats.wire.text import parse_rfc3339

_BEGINS = frozenset(
    {
        EventType.STEP_QUEUED,
        EventType.STEP_STARTED,
        EventType.SLEEP_STARTED,
        EventType.WAIT_STARTED,
        EventType.APPROVAL_REQUESTED,
    }
)
"""The first of these is when a step was dispatched; they do not end anything."""


@final
class AttemptEnd(StrEnum):
    """How one attempt stands.

    ``continued`` is an iteration of a loop that has given its state to the next one.
    """

    RUNNING = "running"
    COMPLETED = "completed"
    CONTINUED = "continued"
    FAILED = "failed"
    UNFINISHED = "unfinished"
    """The run ended first."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptTimeline:
    """One attempt of a step, or of one iteration of a loop, or of one instance of a map.

    Attributes:
        step_id: the step; instances of a map end in ``.map.<index>``.
        number: the attempt number, from 1.
        end: how it ended.
        started_ns: when it started, nanoseconds since the epoch; None if that was not told.
        ended_ns: when it ended, None while it has not.
        starts: how often it was started: more than once after a redelivery.
        worker_id: the worker that ran it last.
        error: the text of its failure.
    """

    step_id: str
    number: int
    end: AttemptEnd = AttemptEnd.RUNNING
    started_ns: int | None = None
    ended_ns: int | None = None
    starts: int = 1
    worker_id: str = ""
    error: str = ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimeline:
    """One step of a run.

    Attributes:
        id: the step.
        type: its type, empty if the history does not hold the definition.
        task: its task type, the same.
        state: how it stands, as the engine keeps it.
        attempts: its attempts, oldest first; those of a map's instances too.
        begun_ns: when it was first dispatched, nanoseconds since the epoch; None before that.
        ended_ns: when it ended, None while it has not.
    """

    id: str
    type: str
    task: str
    state: StepState
    attempts: tuple[AttemptTimeline, ...]
    begun_ns: int | None = None
    ended_ns: int | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class RunTimeline:
    """A run with its steps, in the order of the definition if the history holds it.

    Attributes:
        run: the snapshot.
        steps: the steps.
        started_ns: when the run was created, nanoseconds since the epoch.
        ended_ns: when it ended, None while it has not.
    """

    run: WorkflowRun
    steps: tuple[StepTimeline, ...]
    started_ns: int | None = None
    ended_ns: int | None = None


def timeline(run: WorkflowRun, events: Iterable[HistoryEvent]) -> RunTimeline:
    """Put a snapshot and the events of its run together.

    Events may be missing (the history keeps 30 days) or be newer than the snapshot; both are put
    together as far as they fit. Steps come in the order of the definition, then those that a
    planner has added.

    Args:
        run: the snapshot.
        events: the run's history, oldest first.
    """
    found = list(events)
    ended_ns = time_of(run.completed_at)
    defined = steps_of(found)
    order = [i for i in defined if i in run.steps] + [i for i in run.steps if i not in defined]
    by_step: dict[str, list[HistoryEvent]] = {step_id: [] for step_id in order}
    for event in found:
        by_step.setdefault(_step_of(event.step_id, run), []).append(event)
    return RunTimeline(
        run=run,
        steps=tuple(_step(i, run, defined.get(i, ("", "")), by_step[i], ended_ns) for i in order),
        started_ns=time_of(run.created_at),
        ended_ns=ended_ns,
    )


def steps_of(events: Iterable[HistoryEvent]) -> dict[str, tuple[str, str]]:
    """Return type and task of each step by id, from the definition that a run started with.

    The definition stands in the event that began the run; without it there are no types.
    """
    for event in events:
        if event.type == EventType.WORKFLOW_STARTED and event.payload:
            payload = json.loads(event.payload)
            definition = payload.get("workflow_def") if isinstance(payload, dict) else None
            steps = definition.get("steps") if isinstance(definition, dict) else None
            if isinstance(steps, list):
                return {
                    str(step.get("id", "")): (str(step.get("type", "")), str(step.get("task", "")))
                    for step in steps
                    if isinstance(step, dict)
                }
    return {}


def time_of(text: str) -> int | None:
    """Read a time of a snapshot; None if it has none."""
    try:
        return parse_rfc3339(text)
    except WireError:
        return None


def _step_of(step_id: str, run: WorkflowRun) -> str:
    """Return the step that an instance of a map belongs to, or the step itself."""
    return step_id if step_id in run.steps else step_id.partition(".map.")[0]


def _step(
    step_id: str,
    run: WorkflowRun,
    kind: tuple[str, str],
    events: list[HistoryEvent],
    run_ended_ns: int | None,
) -> StepTimeline:
    """Put one step together: its state from the snapshot, its attempts from its events.

    An attempt that is still open when the run is over has ended with it.
    """
    state = run.steps[step_id]
    fold = _Fold()
    for event in events:
        fold.take(event)
    open_end = AttemptEnd.UNFINISHED if run.status.is_terminal else AttemptEnd.RUNNING
    attempts = tuple(
        replace(a, end=open_end, ended_ns=run_ended_ns) if a.end is AttemptEnd.RUNNING else a
        for a in fold.attempts
    )
    over = state.status.is_done or run.status.is_terminal
    return StepTimeline(
        id=step_id,
        type=kind[0],
        task=kind[1],
        state=state,
        attempts=attempts,
        begun_ns=fold.begun_ns,
        ended_ns=(fold.ended_ns or run_ended_ns) if over and fold.begun_ns is not None else None,
    )


@final
@dataclass(slots=True)
class _Fold:
    """The attempts of one step while its events are read.

    ``_open`` maps a step, or an instance of a map, to its attempt that has not ended: instances
    run side by side under one step.
    """

    attempts: list[AttemptTimeline] = field(default_factory=list)
    begun_ns: int | None = None
    ended_ns: int | None = None
    _open: dict[str, int] = field(default_factory=dict)

    def take(self, event: HistoryEvent) -> None:
        """Take the next event.

        The order of the calls is that of the history; nothing is sorted here.
        """
        if event.type in _BEGINS and self.begun_ns is None:
            self.begun_ns = event.timestamp_ns
        if event.type == EventType.STEP_STARTED:
            self._start(event)
        elif event.type in _OUTCOMES:
            self._end(event, _OUTCOMES[EventType(event.type)])
        if event.type not in _BEGINS:
            self.ended_ns = event.timestamp_ns

    def _start(self, event: HistoryEvent) -> None:
        """Open an attempt, or count one more start of the one that is open."""
        number = event.attempt_number or 1
        index = self._open.get(event.step_id)
        if index is not None and self.attempts[index].number == number:
            again = self.attempts[index]
            worker_id = event.worker_id or again.worker_id
            self.attempts[index] = replace(again, starts=again.starts + 1, worker_id=worker_id)
            return
        self._open[event.step_id] = len(self.attempts)
        self.attempts.append(
            AttemptTimeline(
                step_id=event.step_id,
                number=number,
                started_ns=event.timestamp_ns,
                worker_id=event.worker_id,
            )
        )

    def _end(self, event: HistoryEvent, end: AttemptEnd) -> None:
        """End the open attempt, or enter one whose start is not known."""
        index = self._open.pop(event.step_id, None)
        if index is None:  # its start was dropped as a duplicate (contract 4.3), or never told
            index = len(self.attempts)
            number = event.attempt_number or 1
            self.attempts.append(AttemptTimeline(step_id=event.step_id, number=number))
        self.attempts[index] = replace(
            self.attempts[index],
            end=end,
            ended_ns=event.timestamp_ns,
            error=error_of(event) if end is AttemptEnd.FAILED else "",
        )


_OUTCOMES: Mapping[str, AttemptEnd] = {
    EventType.STEP_COMPLETED: AttemptEnd.COMPLETED,
    EventType.STEP_CONTINUE: AttemptEnd.CONTINUED,
    EventType.STEP_FAILED: AttemptEnd.FAILED,
}


def error_of(event: HistoryEvent) -> str:
    """Return the text of a failure; the payload is an object or a bare string (contract 4.2)."""
    payload = json.loads(event.payload) if event.payload else ""
    return str(payload.get("error", "")) if isinstance(payload, dict) else str(payload)
