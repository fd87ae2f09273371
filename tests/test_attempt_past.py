import json
from dataclasses import dataclass, field

import pytest

from trio_dagnats.attempt.note import Note
from trio_dagnats.attempt.past import MAX_STARTS, Past, killed_too_often, read_past, too_often_text
from trio_dagnats.wire.task import Task

TASK = Task(run_id="r", step_id="s")
RETRY = Task(run_id="r", step_id="s", attempt=2)
DISPATCH = 41


@dataclass(frozen=True)
class Stored:
    """A stored event as a history gives it."""

    sequence: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def stored(type_: str, *, sequence: int = 1, msg_id: str = "", **fields: object) -> Stored:
    """Return a stored event of run r and step s."""
    body = {"type": type_, "run_id": "r", "step_id": "s", **fields}
    return Stored(sequence, json.dumps(body).encode(), {"Nats-Msg-Id": msg_id})


def test_an_empty_history_says_nothing() -> None:
    """Nothing read, nothing known."""
    assert read_past([], TASK, DISPATCH) == Past()


@pytest.mark.parametrize(
    ("task", "event", "settles"),
    [
        (TASK, stored("step.completed", worker_id="w"), True),
        (TASK, stored("step.completed", worker_id="w", attempt_number=1), True),
        (TASK, stored("step.failed", worker_id="w"), True),
        (TASK, stored("step.completed", worker_id="w", attempt_number=2), False),
        (TASK, stored("step.completed", worker_id="w", step_id="other"), False),
        (RETRY, stored("step.completed", worker_id="w", attempt_number=2), True),
        (RETRY, stored("step.completed", worker_id="w"), False),
        (TASK, stored("step.started", worker_id="w", attempt_number=1), False),
        (TASK, stored("step.continue", msg_id="r.s.continue.0.41"), True),
        (TASK, stored("step.continue", msg_id="r.s.continue.0.40"), False),
        (TASK, stored("step.continue", msg_id="r.s.continue.0.1786000000123456789"), True),
        (TASK, stored("step.continue", msg_id="r.s.continue.1.1786000000123456789"), False),
    ],
)
def test_an_outcome_settles_its_own_dispatch_only(
    task: Task, event: Stored, *, settles: bool
) -> None:
    """Step, attempt number and, for a continue, dispatch or iteration decide."""
    assert bool(read_past([event], task, DISPATCH).settled) is settles


def test_starts_of_the_same_number_are_counted() -> None:
    """Each start of this attempt counts; those of other attempts and steps do not."""
    events = [
        stored("step.started", sequence=1, attempt_number=1),
        stored("step.started", sequence=2, attempt_number=1),
        stored("step.started", sequence=3, attempt_number=2),
        stored("step.started", sequence=9, attempt_number=1, step_id="other"),
    ]
    assert read_past(events, TASK, DISPATCH) == Past(starts=2, last_sequence=9)


@pytest.mark.parametrize("type_", ["workflow.cancelled", "workflow.failed", "workflow.completed"])
def test_the_runs_end_is_seen(type_: str) -> None:
    """Any of the three ends counts."""
    event = stored(type_, step_id="")
    assert read_past([event], TASK, DISPATCH).run_ended == type_


def test_the_engines_timeout_is_told_by_its_missing_worker() -> None:
    """Only the engine publishes a failure without a worker."""
    ours = stored("step.failed", attempt_number=1)
    assert read_past([ours], TASK, DISPATCH).timed_out
    assert not read_past([ours], RETRY, DISPATCH).timed_out


def test_damaged_events_are_passed_over() -> None:
    """One unreadable event does not hide the others."""
    past = read_past(
        [Stored(5, b"{"), stored("step.completed", sequence=6, worker_id="w")], TASK, 1
    )
    assert (past.settled, past.last_sequence) == ("step.completed", 6)


@pytest.mark.parametrize("let_go", range(3))
@pytest.mark.parametrize("forgiven", range(3))
@pytest.mark.parametrize("further", range(MAX_STARTS + 2))
def test_starts_that_were_let_go_or_forgiven_are_not_held_against_a_task(
    let_go: int, forgiven: int, further: int
) -> None:
    """Only those that got no further count; at the bound the task kills its workers."""
    past = Past(starts=let_go + forgiven + further)
    note = Note(dispatch=1, let_go=let_go, forgiven=forgiven)
    assert killed_too_often(past, note) is (further >= MAX_STARTS)
    assert f"the last {further} without getting further" in too_often_text(past, note)
