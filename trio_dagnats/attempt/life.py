"""The life of one attempt, as a table: in which state, upon what, do which things follow?

::

    RECEIVED ──ready──> STARTING ──stored──> RUNNING ──completed, continued, failed──> SETTLING
       │                                        │                                         │
       │ no task, settled, run cancelled        │ retry in place, handed back             │
       └───────────────────────────> ENDED <────┴────────── stored, or not, or elsewhere ─┘

A drain, the run's end and a lost lease end an attempt in every state. Rules that the table keeps
(and its tests enumerate): no ACK before the outcome is stored, no TERM before the dead letter is,
nothing at all after the lease is
lost (design 8.7), nothing but an ACK when the run has ended, and NAK, never ACK, when an outcome
could not be stored (contract H20).

Nothing here acts. ``worker.execution.effects`` feeds :func:`step` with what happened, carries out
the effects in their order, and feeds what became of the last one.

The ordinary attempt goes through the table without asking it each time: ``fast_path``, beside it,
has looked up the states of the straight way once, at import, in this same table.
"""

from collections.abc import Mapping
from enum import Enum, auto
from typing import final

from trio_dagnats.errors import DagnatsError


class Named(Enum):
    """A member is itself: hashed by identity, for every attempt looks several of them up."""

    __hash__ = object.__hash__


@final
class State(Named):
    """Where an attempt stands."""

    RECEIVED = auto()
    """Its message is here; nothing was sent."""
    STARTING = auto()
    """``step.started`` is being stored."""
    RUNNING = auto()
    """The handler runs."""
    SETTLING = auto()
    """The outcome is being stored."""
    ENDED = auto()
    """Its message is answered, or must not be answered any more."""


@final
class Input(Named):
    """What can happen to an attempt."""

    NOT_A_TASK = auto()
    """The message is no task, and names no run and step."""
    NOT_A_TASK_WITH_IDS = auto()
    """The message is no task, but names the run and step that wait for it."""
    MESSAGE_KEPT = auto()
    MESSAGE_NOT_KEPT = auto()
    """The dead letter could not be stored: the message is all that there is, so it stays."""
    RUN_CANCELLED_BEFORE = auto()
    """Its run was over before it started (contract 5, step 4)."""
    ALREADY_SETTLED = auto()
    """A redelivery whose outcome is in the history."""
    CONTINUE_MISSING = auto()
    """A redelivery whose loop state is stored, but not its ``step.continue`` (design 8.9)."""
    KILLED_TOO_OFTEN = auto()
    """A redelivery that was started too often without an outcome (design 8.2)."""
    READY = auto()
    """There is a handler to run."""
    STARTED_STORED = auto()
    STARTED_NOT_STORED = auto()
    """Perhaps it is all the same: its id tells it from the next delivery's."""
    COMPLETED = auto()
    CONTINUED = auto()
    FAILED = auto()
    RETRY_IN_PLACE = auto()
    """The handler asked for a redelivery, and has some left."""
    HANDED_BACK = auto()
    """A pause that nobody waits for here: by ``hand_back=True``, or by a drain during it."""
    OUTCOME_STORED = auto()
    OUTCOME_NOT_STORED = auto()
    """No acknowledgement: it may be stored, and the next delivery reads the history to find out."""
    SETTLED_ELSEWHERE = auto()
    """Another delivery of the dispatch has settled it, or the run has ended."""
    DRAINED = auto()
    RUN_ENDED = auto()
    LEASE_LOST = auto()


@final
class Effect(Named):
    """What has to be done; the result of a row's last one, if it has any, is the next input."""

    KEEP_MESSAGE = auto()
    """Store the message among the dead letters."""
    PUBLISH_STARTED = auto()
    RUN_HANDLER = auto()
    PUBLISH_OUTCOME = auto()
    WRITE_NOTE = auto()
    TIDY_UP = auto()
    """Remove what the attempt has left on the server: its note, and what else it says."""
    ACK = auto()
    NAK = auto()
    NAK_DELAYED = auto()
    TERM = auto()


Move = tuple[State, tuple[Effect, ...]]

_PUBLISH: Move = (State.SETTLING, (Effect.PUBLISH_OUTCOME,))
_DONE: Move = (State.ENDED, (Effect.ACK, Effect.TIDY_UP))
_LET_GO: Move = (State.ENDED, (Effect.WRITE_NOTE, Effect.NAK))
_LET_GO_FOR_A_WHILE: Move = (State.ENDED, (Effect.WRITE_NOTE, Effect.NAK_DELAYED))

_ROWS: Mapping[tuple[State, Input], Move] = {
    (State.RECEIVED, Input.NOT_A_TASK): (State.RECEIVED, (Effect.KEEP_MESSAGE,)),
    (State.RECEIVED, Input.MESSAGE_KEPT): (State.ENDED, (Effect.TERM,)),
    (State.RECEIVED, Input.MESSAGE_NOT_KEPT): (State.ENDED, (Effect.NAK_DELAYED,)),
    (State.RECEIVED, Input.NOT_A_TASK_WITH_IDS): (
        State.SETTLING,
        (Effect.KEEP_MESSAGE, Effect.PUBLISH_OUTCOME),
    ),
    (State.RECEIVED, Input.RUN_CANCELLED_BEFORE): (State.ENDED, (Effect.ACK,)),
    (State.RECEIVED, Input.ALREADY_SETTLED): _DONE,
    (State.RECEIVED, Input.CONTINUE_MISSING): _PUBLISH,
    (State.RECEIVED, Input.KILLED_TOO_OFTEN): _PUBLISH,
    (State.RECEIVED, Input.READY): (State.STARTING, (Effect.PUBLISH_STARTED,)),
    (State.RECEIVED, Input.DRAINED): (State.ENDED, (Effect.NAK,)),
    (State.STARTING, Input.STARTED_STORED): (State.RUNNING, (Effect.RUN_HANDLER,)),
    (State.STARTING, Input.STARTED_NOT_STORED): (State.ENDED, (Effect.NAK_DELAYED,)),
    (State.STARTING, Input.DRAINED): _LET_GO,  # the event may be stored: then it counts as a start
    (State.RUNNING, Input.COMPLETED): _PUBLISH,
    (State.RUNNING, Input.CONTINUED): _PUBLISH,
    (State.RUNNING, Input.FAILED): _PUBLISH,
    (State.RUNNING, Input.RETRY_IN_PLACE): _LET_GO_FOR_A_WHILE,
    (State.RUNNING, Input.HANDED_BACK): _LET_GO_FOR_A_WHILE,
    (State.RUNNING, Input.DRAINED): _LET_GO,
    (State.SETTLING, Input.OUTCOME_STORED): _DONE,
    (State.SETTLING, Input.SETTLED_ELSEWHERE): _DONE,
    (State.SETTLING, Input.OUTCOME_NOT_STORED): (State.ENDED, (Effect.NAK_DELAYED,)),
    (State.SETTLING, Input.DRAINED): (State.ENDED, (Effect.NAK,)),
}
_LIVING = (State.RECEIVED, State.STARTING, State.RUNNING, State.SETTLING)

MOVES: Mapping[tuple[State, Input], Move] = {
    **_ROWS,
    **{(state, Input.RUN_ENDED): _DONE for state in _LIVING},
    **{(state, Input.LEASE_LOST): (State.ENDED, ()) for state in _LIVING},
}
"""Every legal move; a missing key is a mistake of the caller."""


def step(state: State, what: Input) -> Move:
    """Return the next state and what has to be done, in order.

    Raises:
        DagnatsError: this cannot happen in this state; a bug of the caller.
    """
    try:
        return MOVES[state, what]
    except KeyError:
        raise DagnatsError(
            f"{what.name} cannot happen to an attempt that is {state.name}"
        ) from None
