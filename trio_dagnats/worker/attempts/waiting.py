"""A wait of the whole attempt: without a slot, with its lease.

The wait ends with its scope: by drain, by the run's end, or by the handler's own cancellation.

An attempt gives its slot up only when *all* of it waits. It does not, and only the wait is noted,

- if a child task of the handler waits: its siblings may be at work;
- if the handler has a nursery with tasks in it, for the same reason;
- if the handler is a plain ``def``: its thread stands there as before;
- if it waits already.

The lease is kept all the while (``upkeep``), and the watch of its run: whoever waits for days on a
signal is told of the run's end.
"""

from types import TracebackType
from typing import final

import trio

from trio_dagnats.attempt.reasons import CancelReason
from trio_dagnats.worker.attempts.attempt import Attempt, Wait


@final
class Waiting:
    """Marks a wait for the length of a block, without a slot while the whole attempt waits.

    Entering it while the worker drains ends the attempt at once: a wait that has not begun is
    better begun elsewhere. A class, for a generator weighs more, and there may be thousands.
    """

    __slots__ = ("_attempt", "_wait", "_whole")

    def __init__(self, attempt: Attempt, wait: Wait) -> None:
        self._attempt = attempt
        self._wait = wait
        self._whole = _waits_as_a_whole(attempt)

    async def __aenter__(self) -> None:
        """Note the wait, and give up the slot; never waits itself."""
        attempt = self._attempt
        attempt.waits += (self._wait,)
        if self._whole:
            attempt.idle = True
            if attempt.shared.draining.is_set():
                attempt.cancel(CancelReason.DRAIN)
            attempt.shared.slots.suspend(attempt.consumer.share)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take a slot again, before new pulls; in a cancelled attempt without waiting for one.

        A cancelled attempt keeps its wait: the farewell needs the end of its pause.
        """
        attempt = self._attempt
        try:
            # A coroutine that is being closed must not wait any more.
            if self._whole and kind is not GeneratorExit:
                await attempt.shared.slots.resume(attempt.consumer.share)
                attempt.idle = False
        finally:
            if attempt.reason is None:  # else the farewell still needs to know it
                attempt.waits = tuple(other for other in attempt.waits if other is not self._wait)


def _waits_as_a_whole(attempt: Attempt) -> bool:
    return (
        (task := trio.lowlevel.current_task()) is attempt.main_task
        and not attempt.program.threaded
        and not any(nursery.child_tasks for nursery in task.child_nurseries)
        and not attempt.waits
    )
