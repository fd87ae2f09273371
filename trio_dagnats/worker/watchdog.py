"""A thread that notices when the event loop stands still, and names the line it stands on (8.7).

While the loop is blocked nothing renews leases, and nobody in the loop can say so. The thread only
reads a clock and, once per blockage, the stack of the loop's thread.
"""

import logging
import sys
import threading
import time
import traceback
from functools import partial
from typing import final

import trio

log = logging.getLogger("trio_dagnats.worker")

BEAT = 0.25
"""Seconds between two signs of life of the loop."""
BLOCKED = 1.0
"""Seconds without one after which the loop counts as blocked."""


@final
class Watchdog:
    """Watches the loop that runs it, for as long as :meth:`run` runs."""

    def __init__(self) -> None:
        self._beat = time.monotonic()
        self._over = threading.Event()

    async def run(self) -> None:
        """Give signs of life until cancelled; the thread ends with it."""
        thread = partial(self._watch, threading.get_ident())
        async with trio.open_nursery() as nursery:
            # A place of its own: trio's default limit is for the program's threads.
            place = trio.CapacityLimiter(1)
            nursery.start_soon(partial(trio.to_thread.run_sync, thread, limiter=place))
            try:
                while True:
                    self._beat = time.monotonic()
                    await trio.sleep(BEAT)
            finally:
                self._over.set()

    def _watch(self, loop_thread: int) -> None:
        named = 0.0
        while not self._over.wait(BEAT):
            beat = self._beat
            still = time.monotonic() - beat
            if still > BLOCKED and beat != named:
                named = beat
                self._name(loop_thread, still)

    @staticmethod
    def _name(loop_thread: int, still: float) -> None:
        frame = sys._current_frames().get(loop_thread)  # noqa: SLF001 - the documented way
        stack = "".join(traceback.format_stack(frame)) if frame else "(no stack)\n"
        log.error(
            "the event loop has stood still for %.1f s; leases are not renewed meanwhile. A "
            "handler that computes or waits without trio belongs in a thread (write it as `def`):"
            "\n%s",
            still,
            stack,
        )
