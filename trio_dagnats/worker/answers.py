"""What an attempt says: its two events, and the answers to its message. Nothing here waits."""

from collections.abc import Callable, Mapping

from trio_dagnats.attempt.life import Effect
from trio_dagnats.attempt.outcome import Completed, Settlement, event_for
from trio_dagnats.errors import BrokerError
from trio_dagnats.logs import Log
from trio_dagnats.wire import events
from trio_dagnats.wire.events import Event
from trio_dagnats.worker.attempt import Attempt
from trio_dagnats.worker.durable_map import clear_entries

log = Log("trio_dagnats.worker")


def started_event(attempt: Attempt) -> Event:
    """Return the attempt's ``step.started``."""
    hub = attempt.hub
    return events.started(
        attempt.task,
        worker_id=hub.worker_id,
        time_ns=hub.broker.time_ns(),
        trace=attempt.trace,
        deliveries=attempt.delivery.deliveries,
    )


def outcome_event(attempt: Attempt, outcome: Settlement) -> Event:
    """Return the event of the attempt's outcome."""
    hub = attempt.hub
    return event_for(
        outcome,
        attempt.task,
        dispatch=attempt.dispatch,
        worker_id=hub.worker_id,
        time_ns=hub.broker.time_ns(),
        trace=attempt.trace,
        iteration=attempt.iteration,
    )


def _ack(attempt: Attempt) -> None:
    attempt.delivery.ack(not_after=attempt.lease_until)


def _nak(attempt: Attempt) -> None:
    attempt.delivery.nak(not_after=attempt.lease_until)


def _nak_delayed(attempt: Attempt) -> None:
    attempt.delivery.nak(attempt.nak_delay, not_after=attempt.lease_until)


def _term(attempt: Attempt) -> None:
    attempt.delivery.term(not_after=attempt.lease_until)


def _delete_note(attempt: Attempt) -> None:
    """Delete the note off the attempt's path: nothing depends on when it goes.

    One that remembers signals must outlive a retry and an iteration.
    """
    if attempt.note_written and (
        isinstance(attempt.outcome, Completed) or not attempt.note.signals
    ):
        attempt.hub.chores.start_soon(_drop_note, attempt)
    if attempt.maps:
        attempt.hub.chores.start_soon(clear_entries, attempt)


async def _drop_note(attempt: Attempt) -> None:
    try:
        await attempt.hub.store.drop_note(attempt.task)
    except BrokerError:  # another dispatch ignores it (design 8.2)
        log.debug("%s: note not deleted", attempt.label, extra=attempt.log_fields)


ANSWERS: Mapping[Effect, Callable[[Attempt], None]] = {
    Effect.DELETE_NOTE: _delete_note,
    Effect.ACK: _ack,
    Effect.NAK: _nak,
    Effect.NAK_DELAYED: _nak_delayed,
    Effect.TERM: _term,
}
"""The effects that are carried out at once; the others wait for the server (``drive``)."""
