"""Progress of a task whose workers have died: what was before it is not held against it (8.2).

Only a restarted attempt has anything to forgive, so nobody else pays for this.
"""

from trio_dagnats.attempt.past import MAX_CHANCES
from trio_dagnats.errors import BrokerError
from trio_dagnats.logs import Log
from trio_dagnats.worker.attempt import Attempt

log = Log("trio_dagnats.worker")


async def got_further(attempt: Attempt, *, chance: bool = False) -> None:
    """Note, once per start, that it has got further than those before it.

    Args:
        attempt: the attempt; its note has been read.
        chance: it may be no progress at all, so it counts ``MAX_CHANCES`` times only.
    """
    starts = attempt.starts
    if not starts or (chance and attempt.note.chances >= MAX_CHANCES):
        return
    attempt.starts = 0
    attempt.note = attempt.note.with_progress(starts, chance=chance)
    try:
        await attempt.hub.store.save_note(attempt.task, attempt.note)
        attempt.note_written = True
    except BrokerError as error:  # costs a count, and must not cost the handler
        log.warning("%s: progress not noted: %s", attempt.label, error, extra=attempt.log_fields)
