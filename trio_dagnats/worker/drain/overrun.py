"""The end of a drain: handlers that run after the grace are cancelled, then named, then left.

::

    drain(grace) ──> the grace ends ──> cancelled: DRAIN ──> named with its stack, each second
                       │                                         │
                       └── hard_exit: HARD_EXIT_AFTER s later ───┴──> ledger, exit code 70

| | called by | stops what |
|---|---|---|
| :meth:`Overrun.run` | ``service``, as a helper | handlers that end when they are cancelled |
| :meth:`Overrun.sweep` | ``service``, once the last pull has ended | what came after the grace |
| :meth:`Overrun.exit_at_last` | ``worker``, with ``hard_exit`` only | all else, with the process |

trio can stop no handler that swallows its cancellation, shields itself, or sits in a thread.
Without ``hard_exit`` the worker stays for as long as one of them does, and its log says which. The
lease of a cancelled attempt is prolonged no more (``upkeep``), so another worker gets the task in
the end.
"""

import logging
import os
from collections.abc import Callable, Iterable
from typing import final

import trio

from trio_dagnats.attempt.reasons import CancelReason
from trio_dagnats.logs import Log
from trio_dagnats.transport.port import FOREVER
from trio_dagnats.wire.tree import lines
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.deadlines import HARD_EXIT_AFTER
from trio_dagnats.worker.drain.ledger import LedgerLine
from trio_dagnats.worker.observe.task_trees import SourceLines, attempt_tree

log = Log("trio_dagnats.worker")

HARD_EXIT_CODE = 70
"""The exit code of a process that was ended so (``EX_SOFTWARE`` of ``sysexits.h``)."""
REFUSING_AFTER = 1.0
"""Seconds between two looks at handlers that do not end after they were cancelled."""


@final
class Overrun:
    """Ends the attempts of a worker whose grace is over.

    Args:
        grace: its end is that of the grace.
        live: gives the attempts in flight.
        ledger: gives what became of those that were in flight when the drain began.
    """

    def __init__(
        self,
        grace: trio.CancelScope,
        live: Callable[[], Iterable[Attempt]],
        ledger: Callable[[], Iterable[LedgerLine]],
    ) -> None:
        self._grace = grace
        self._live = live
        self._ledger = ledger
        self._graceless = False
        self._last = trio.CancelScope(shield=True)

    async def run(self) -> None:
        """Cancel what still runs when the grace ends, and name what does not end even then."""
        with self._grace:
            await trio.sleep_forever()
        self._graceless = True
        self.sweep()
        while True:
            await trio.sleep(REFUSING_AFTER)
            _name(self._live())

    def sweep(self) -> None:
        """Cancel what runs, if the grace is over: also what came until the last pull had ended."""
        if self._graceless:
            for attempt in self._live():
                attempt.cancel(CancelReason.DRAIN)

    def limit(self, grace_ends: float) -> None:
        """Say when the grace ends (trio time); a second signal makes that sooner."""
        self._last.deadline = grace_ends + HARD_EXIT_AFTER

    async def exit_at_last(self) -> None:
        """End the process if it is still there then, until :meth:`over` (design 8.12).

        Not to be cancelled: a caller that cancels the worker still wants it gone.
        """
        with self._last:
            await trio.sleep_forever()
        if trio.current_time() >= self._last.deadline:
            self._leave_process()

    def over(self) -> None:
        """Say that nothing is left that could be waited for."""
        self._last.deadline = FOREVER
        self._last.cancel()

    def _leave_process(self) -> None:
        """End the process under what nothing else can end: handlers, a server's silence.

        By ``os._exit``: what is raised in here would wait for the very tasks that do not end.
        """
        _name(self._live())
        for line in self._ledger():
            log.error("left behind: %s", line)
        log.error("leaving the process with exit code %d (hard_exit)", HARD_EXIT_CODE)
        logging.shutdown()
        os._exit(HARD_EXIT_CODE)


def _name(attempts: Iterable[Attempt]) -> None:
    places = SourceLines()
    for attempt in attempts:
        log.warning(
            "%s does not end after it was cancelled (it swallows the cancellation, shields "
            "itself, or sits in a thread):\n%s",
            attempt.label,
            "\n".join(lines(attempt_tree(attempt, places))),
            extra=attempt.log_fields,
        )
