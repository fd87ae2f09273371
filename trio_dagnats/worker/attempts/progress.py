"""Progress of a task whose workers have died: what was before it is not held against it.

Only a restarted attempt has anything to forgive, so nobody else pays for this.
"""

from trio_dagnats.errors import BrokerError
from trio_dagnats.logs import Log
from trio_dagnats.worker.attempts.attempt import Attempt

log = Log("trio_dagnats.worker")


async def got_further(attempt: Attempt, *, chance: bool = False) -> None:
    """Note, once per start, that it has got further than those before it.

    Args:
        attempt: the attempt; its note has been read if it is a redelivery.
        chance: it may be no progress at all, so it counts ``MAX_CHANCES`` times only.
    """
    try:
        await attempt.memory.got_further(chance=chance)
    except BrokerError as error:  # costs a count, and must not cost the handler
        log.warning("%s: progress not noted: %s", attempt.label, error, extra=attempt.log_fields)
