"""The ledger of slots: how many attempts may run, and which pulls may promise to bring more.

``free + promised + running == capacity`` at any moment (design 8.8). A promise is a credit of an
open pull: nothing is asked for that could not run at once (contract H2). An attempt that waits as
a whole (pause, signal) gives its slot up and is only counted. When it resumes it takes a free slot,
or one that is merely promised, for an open pull can last half a minute: then ``free`` is negative,
and as many of the next arrivals are handed back at once. No I/O here; the two waits are plain trio
parking.
"""

from collections import deque
from dataclasses import dataclass
from typing import final

import outcome
import trio

_Place = tuple[trio.lowlevel.Task, "Share"]

MAX_OPEN_PULLS = 2
"""Rule D6: a second pull asks for what came free while the first one was under way; a third one
would only make the server's list of waiting pulls longer."""

IDLE_PART = 4
"""All idle consumers together promise at most this part (a quarter) of the slots."""


@final
@dataclass(slots=True, eq=False)
class Share:
    """One consumer's part of the ledger.

    ``recent`` is how many messages its last pulls brought: among several consumers an idle one
    promises little, so that a busy one finds free slots.
    """

    limit: int
    promised: int = 0
    running: int = 0
    open_pulls: int = 0
    recent: int = 0

    @property
    def room(self) -> int:
        """Slots that this consumer's own limit still allows."""
        return self.limit - self.promised - self.running


@final
class Slots:
    """The slots of one worker.

    Args:
        capacity: attempts that may run at once, over all consumers.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.promised = 0
        self.running = 0
        self.waiting = 0
        self.shares: list[Share] = []
        self._resuming: deque[_Place] = deque()
        self._pullers: deque[_Place] = deque()

    def __repr__(self) -> str:
        return (
            f"<Slots free={self.free} promised={self.promised} running={self.running} "
            f"waiting={self.waiting}>"
        )

    @property
    def free(self) -> int:
        """Slots that are neither promised nor running; negative while promises are overdrawn."""
        return self.capacity - self.promised - self.running

    def share(self, limit: int | None) -> Share:
        """Add a consumer; ``limit`` bounds its own attempts, None for the whole capacity."""
        share = Share(limit=min(limit or self.capacity, self.capacity))
        self.shares.append(share)
        return share

    async def promise(self, share: Share) -> int:
        """Wait until this consumer may pull, and promise it the slots of one pull (at least 1).

        Cancellation: nothing is promised.
        """
        await trio.lowlevel.checkpoint()  # lets everything that ends in this turn free its slot
        if self._may_pull(share):
            return self._grant(share)
        batch: int = await self._park(self._pullers, share)
        return batch

    def arrived(self, share: Share) -> bool:
        """Turn a promise into a running attempt; False if there is no slot for it.

        A message without a promise (a pull that was given up as dead answered after all) takes
        a free slot if there is one.
        """
        overdrawn = self.free < 0 or share.room < 0
        if share.promised:
            share.promised -= 1
            self.promised -= 1
            if not share.promised:
                share.open_pulls = 0
        elif self.free <= 0 or share.room <= 0:
            return False
        if overdrawn:
            return False
        share.running += 1
        share.recent += 1
        self.running += 1
        if not share.open_pulls:
            self._wake()
        return True

    def returned(self, share: Share, credits_: int) -> None:
        """Take back the promises of a pull that ended without using them."""
        back = min(credits_, share.promised)
        share.promised -= back
        self.promised -= back
        share.open_pulls = max(0, share.open_pulls - 1) if share.promised else 0
        self._wake()

    def ended(self, share: Share) -> None:
        """Free the slot of an attempt that ended."""
        share.running -= 1
        self.running -= 1
        self._wake()

    def suspend(self, share: Share) -> None:
        """Give up the slot of an attempt that waits as a whole."""
        self.waiting += 1
        self.ended(share)

    async def resume(self, share: Share) -> None:
        """Take a slot again, before any new pull; waits only while all of them run.

        Cancellation: the attempt is running again all the same (it has to clean up), which may
        exceed the capacity for that moment.
        """
        if self._may_restart(share):
            self._restart(share)
            return
        try:
            await self._park(self._resuming, share)
        except trio.Cancelled:
            self._restart(share)
            raise

    def _may_restart(self, share: Share) -> bool:
        return self.running < self.capacity and share.running < share.limit

    def _restart(self, share: Share) -> None:
        self.waiting -= 1
        share.running += 1
        self.running += 1

    def _may_pull(self, share: Share) -> bool:
        return (
            self.free > 0
            and share.room > 0
            and share.open_pulls < MAX_OPEN_PULLS
            and not self._resuming
        )

    def _grant(self, share: Share) -> int:
        batch = min(self.free, share.room)
        if len(self.shares) > 1:
            fair = self.free // (1 + len(self._pullers))
            idle = self.capacity // (IDLE_PART * len(self.shares))
            batch = max(1, min(batch, max(idle, 2 * share.recent), fair))
        share.promised += batch
        share.open_pulls += 1
        share.recent = 0
        self.promised += batch
        return batch

    @staticmethod
    async def _park(line: deque[_Place], share: Share) -> int:
        place = (trio.lowlevel.current_task(), share)
        line.append(place)

        def leave(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            line.remove(place)
            return trio.lowlevel.Abort.SUCCEEDED

        granted: int = await trio.lowlevel.wait_task_rescheduled(leave)
        return granted

    def _wake(self) -> None:
        """Hand free slots out, accounted for at once: the woken task runs only a turn later."""
        if not (self._resuming or self._pullers):
            return
        for place in list(self._resuming):
            if self._may_restart(place[1]):
                self._resuming.remove(place)
                self._restart(place[1])
                trio.lowlevel.reschedule(place[0])
        for place in list(self._pullers):
            if self._may_pull(place[1]):
                self._pullers.remove(place)
                trio.lowlevel.reschedule(place[0], outcome.Value(self._grant(place[1])))
