"""The end of a drain: handlers that run after the grace are cancelled, then named, then left."""

import logging
import os
from collections.abc import Callable, Iterable
from typing import final

import trio

from trio_dagnats.transport.port import FOREVER
from trio_dagnats.wire.tree import lines
from trio_dagnats.worker.attempt import Attempt
from trio_dagnats.worker.ledger import LedgerLine
from trio_dagnats.worker.reasons import CancelReason
from trio_dagnats.worker.trees import Places, attempt_tree

log = logging.getLogger("trio_dagnats.worker")

HARD_EXIT_AFTER = 1.5
"""Seconds after the grace at which ``hard_exit`` ends the process: it is gone within two."""
HARD_EXIT_CODE = 70
REFUSING_AFTER = 1.0
"""Seconds between two looks at handlers that do not end after they were cancelled."""


@final
class Overrun:
    """Ends the attempts of a worker whose grace is over.

    Args:
        live: gives the attempts in flight.
        ledger: gives what became of those that were in flight when the drain began.
        hard_exit: end the process if handlers outlive their cancellation.
    """

    def __init__(
        self,
        live: Callable[[], Iterable[Attempt]],
        ledger: Callable[[], Iterable[LedgerLine]],
        *,
        hard_exit: bool,
    ) -> None:
        self._live = live
        self._ledger = ledger
        self._hard_exit = hard_exit

    async def run(self, grace: trio.CancelScope) -> None:
        """Cancel what still runs when the grace ends, and name what does not end even then."""
        with grace:
            await trio.sleep_forever()
        for attempt in self._live():
            attempt.cancel(CancelReason.DRAIN)
        last = trio.current_time() + HARD_EXIT_AFTER if self._hard_exit else FOREVER
        while True:
            await trio.sleep_until(min(trio.current_time() + REFUSING_AFTER, last))
            if trio.current_time() >= last:
                self._leave_process()
            _name(self._live())

    def _leave_process(self) -> None:
        """End the process under handlers that nothing else can end (design 8.12)."""
        for line in self._ledger():
            log.error("left behind: %s", line)
        log.error("leaving the process with exit code %d (hard_exit)", HARD_EXIT_CODE)
        logging.shutdown()
        os._exit(HARD_EXIT_CODE)


def _name(attempts: Iterable[Attempt]) -> None:
    places = Places()
    for attempt in attempts:
        log.warning(
            "%s does not end after it was cancelled (it swallows the cancellation, shields "
            "itself, or sits in a thread):\n%s",
            attempt.label,
            "\n".join(lines(attempt_tree(attempt, places))),
            extra=attempt.log_fields,
        )
