from itertools import product

import pytest

from trio_dagnats.attempt.life import MOVES, Effect, Input, State, step
from trio_dagnats.errors import DagnatsError

BEFORE = {
    Input.NOT_A_TASK,
    Input.NOT_A_TASK_WITH_IDS,
    Input.RUN_CANCELLED_BEFORE,
    Input.ALREADY_SETTLED,
    Input.CONTINUE_MISSING,
    Input.KILLED_TOO_OFTEN,
    Input.READY,
}
HANDLER = {
    Input.COMPLETED,
    Input.CONTINUED,
    Input.FAILED,
    Input.RETRY_IN_PLACE,
    Input.HANDED_BACK,
}
KEPT = {Input.MESSAGE_KEPT, Input.MESSAGE_NOT_KEPT}
VERDICTS = {Input.OUTCOME_STORED, Input.OUTCOME_NOT_STORED, Input.SETTLED_ELSEWHERE}
ANYTIME = {Input.DRAINED, Input.RUN_ENDED, Input.LEASE_LOST}
POSSIBLE = {
    State.RECEIVED: BEFORE | KEPT | ANYTIME,
    State.STARTING: {Input.STARTED_STORED, Input.STARTED_NOT_STORED} | ANYTIME,
    State.RUNNING: HANDLER | ANYTIME,
    State.SETTLING: VERDICTS | ANYTIME,
    State.ENDED: set[Input](),
}
SENDING = {Effect.ACK, Effect.NAK, Effect.NAK_DELAYED, Effect.TERM}


@pytest.mark.parametrize(("state", "what"), list(product(State, Input)))
def test_the_table_is_total_over_what_can_happen(state: State, what: Input) -> None:
    """Every pair is a row, or is refused as a mistake of the caller."""
    if what in POSSIBLE[state]:
        assert step(state, what) == MOVES[state, what]
    else:
        with pytest.raises(DagnatsError, match=what.name):
            step(state, what)


@pytest.mark.parametrize("state", [s for s in State if s is not State.ENDED])
def test_every_state_can_end(state: State) -> None:
    """From everywhere a single event ends the attempt."""
    assert any(step(state, what)[0] is State.ENDED for what in POSSIBLE[state])


@pytest.mark.parametrize(("move", "row"), MOVES.items())
def test_an_end_answers_the_message_once(
    move: tuple[State, Input], row: tuple[State, tuple[Effect, ...]]
) -> None:
    """A row that ends the attempt sends exactly one answer, unless the lease is lost."""
    answers = [effect for effect in row[1] if effect in SENDING]
    expected = 1 if row[0] is State.ENDED and move[1] is not Input.LEASE_LOST else 0
    assert len(answers) == expected


def test_a_lost_lease_sends_nothing() -> None:
    """After the lease nothing at all is said about the delivery."""
    for state in (State.RECEIVED, State.STARTING, State.RUNNING, State.SETTLING):
        assert step(state, Input.LEASE_LOST) == (State.ENDED, ())


def test_an_ended_run_is_acked_and_nothing_is_published() -> None:
    """The engine ignores what comes after the end of a run, so the message is done."""
    for state in (State.RECEIVED, State.STARTING, State.RUNNING, State.SETTLING):
        assert step(state, Input.RUN_ENDED)[1] == (Effect.ACK, Effect.TIDY_UP)


def test_a_handlers_outcome_is_stored_before_the_ack() -> None:
    """From RUNNING there is no way to an ACK but through a stored outcome or the run's end."""
    for what in HANDLER:
        assert Effect.ACK not in step(State.RUNNING, what)[1]
    acking = {w for w in VERDICTS | ANYTIME if Effect.ACK in step(State.SETTLING, w)[1]}
    assert acking == {Input.OUTCOME_STORED, Input.SETTLED_ELSEWHERE, Input.RUN_ENDED}


@pytest.mark.parametrize(
    ("state", "what", "answer"),
    [
        (State.SETTLING, Input.OUTCOME_NOT_STORED, Effect.NAK_DELAYED),
        (State.STARTING, Input.STARTED_NOT_STORED, Effect.NAK_DELAYED),
        (State.RUNNING, Input.RETRY_IN_PLACE, Effect.NAK_DELAYED),
        (State.RUNNING, Input.HANDED_BACK, Effect.NAK_DELAYED),
        (State.RUNNING, Input.DRAINED, Effect.NAK),
        (State.RECEIVED, Input.MESSAGE_KEPT, Effect.TERM),
        (State.RECEIVED, Input.MESSAGE_NOT_KEPT, Effect.NAK_DELAYED),
        (State.RECEIVED, Input.ALREADY_SETTLED, Effect.ACK),
        (State.RECEIVED, Input.RUN_CANCELLED_BEFORE, Effect.ACK),
    ],
)
def test_each_ending_answers_as_the_design_says(state: State, what: Input, answer: Effect) -> None:
    """The outcome table of the design, row by row."""
    end, effects = step(state, what)
    assert end is State.ENDED
    assert answer in effects


def test_what_is_no_task_leaves_the_queue_only_when_it_is_kept() -> None:
    """There is one way to a TERM: through a stored dead letter."""
    assert step(State.RECEIVED, Input.NOT_A_TASK) == (State.RECEIVED, (Effect.KEEP_MESSAGE,))
    assert [m for m, (_, effects) in MOVES.items() if Effect.TERM in effects] == [
        (State.RECEIVED, Input.MESSAGE_KEPT)
    ]


def test_letting_go_is_noted_before_the_hand_back() -> None:
    """The next worker must find the note when it gets the message."""
    for what in (Input.DRAINED, Input.RETRY_IN_PLACE, Input.HANDED_BACK):
        assert step(State.RUNNING, what)[1][0] is Effect.WRITE_NOTE
