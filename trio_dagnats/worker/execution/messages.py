"""What an attempt says: its two events, and the answers to its message. Nothing here waits.

An answer queues one frame, and is sent only while the lease stands (``not_after``): a late ACK
takes the message from the worker that has it by then, a late NAK gives it to a third one (design
8.7). A message is answered once; the transport ignores a second answer.

Both ways of an attempt, ``fast_path`` and ``effects``, make their events and answers here: so they
look alike, and an event that is sent again by the other way has the same id.
"""

from collections.abc import Callable, Mapping

from trio_dagnats.attempt.life import Effect
from trio_dagnats.attempt.outcome import Settlement, event_for
from trio_dagnats.errors import BrokerError
from trio_dagnats.logs import Log
from trio_dagnats.wire import events
from trio_dagnats.wire.events import Event
from trio_dagnats.worker.attempts.attempt import Attempt

log = Log("trio_dagnats.worker")


def started_event(attempt: Attempt) -> Event:
    """Return the attempt's ``step.started``; its id names the delivery, so that starts count."""
    shared = attempt.shared
    return events.started(
        attempt.task,
        worker_id=shared.worker_id,
        time_ns=shared.broker.time_ns(),
        trace=attempt.trace,
        deliveries=attempt.delivery.deliveries,
    )


def outcome_event(attempt: Attempt, outcome: Settlement) -> Event:
    """Return the event of the attempt's outcome.

    Made anew for each way that it is tried: the time in it may differ, its id does not.
    """
    shared = attempt.shared
    return event_for(
        outcome,
        attempt.task,
        dispatch=attempt.dispatch,
        worker_id=shared.worker_id,
        time_ns=shared.broker.time_ns(),
        trace=attempt.trace,
        iteration=attempt.iteration,
    )


def _ack(attempt: Attempt) -> None:
    """Say that nobody has to work on the task any more: its outcome is stored, or unwanted."""
    attempt.delivery.ack(not_after=attempt.lease_until)


def _nak(attempt: Attempt) -> None:
    """Hand the task back at once; surely in time, ``effects`` has seen to that."""
    attempt.delivery.nak(not_after=attempt.lease_until)


def _nak_delayed(attempt: Attempt) -> None:
    """Hand it back for ``nak_delay`` seconds, which whoever chose this way has set."""
    attempt.delivery.nak(attempt.nak_delay, not_after=attempt.lease_until)


def _term(attempt: Attempt) -> None:
    """Take out of the queue what is no task, once it is kept."""
    attempt.delivery.term(not_after=attempt.lease_until)


def _tidy_up(attempt: Attempt) -> None:
    """Remove what it has left on the server, off its path: nothing depends on when it goes.

    A worker that is killed before leaves it there: another dispatch ignores the note, and nobody
    reads the rest. So it comes after the ACK, in a nursery that outlives the attempt.
    """
    memory = attempt.own_memory
    if memory is not None and memory.is_stored and not memory.outlives(attempt.outcome):
        attempt.shared.chores.start_soon(_drop_note, attempt)
    for remove in attempt.leftovers:
        attempt.shared.chores.start_soon(remove, attempt)


async def _drop_note(attempt: Attempt) -> None:
    """Delete the note; a server that does not answer keeps it, which harms nobody."""
    try:
        await attempt.memory.drop()
    except BrokerError:  # another dispatch ignores it
        log.debug("%s: note not deleted", attempt.label, extra=attempt.log_fields)


ANSWERS: Mapping[Effect, Callable[[Attempt], None]] = {
    Effect.TIDY_UP: _tidy_up,
    Effect.ACK: _ack,
    Effect.NAK: _nak,
    Effect.NAK_DELAYED: _nak_delayed,
    Effect.TERM: _term,
}
"""The effects that are carried out at once; the others wait for the server (``effects``).

A table of functions, so that ``fast_path`` can look up once what follows from a stored outcome.
"""
