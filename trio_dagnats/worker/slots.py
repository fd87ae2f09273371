"""The ledger of slots: how many attempts may run, and which pulls may promise to bring more.

A promise is a credit of an open pull: nothing is asked for that could not run at once (design 8.8,
contract H2), so ``free + promised + running == capacity``. Two things may overdraw it, and what
arrives while all slots run is then handed back at once:

- An attempt that waits as a whole (pause, signal) gives its slot up and is only counted. When it
  resumes it takes a free slot, or one that is merely promised, for a pull can last half a minute.
- Among many consumers an idle one has a standing credit that no slot is kept for. Kept ones would
  leave none to the busy consumers: ten idle task types can wait on eight slots.

No I/O here; the waits are plain trio parking.
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

WORTH = 8
"""Messages that are worth a pull, however many consumers wait for their turn."""

IDLE_PART = 4
"""All idle consumers together promise at most this part (a quarter) of the slots."""


@final
@dataclass(slots=True, eq=False)
class Share:
    """One consumer's part of the ledger.

    ``recent`` is how many messages came since its last pull: among several consumers an idle one
    promises little, so that a busy one finds free slots. ``standing`` says that its one promise is
    a standing credit, which has no slot.
    """

    limit: int
    promised: int = 0
    standing: bool = False
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
        self.standing = 0
        self.running = 0
        self.waiting = 0
        self.shares: list[Share] = []
        self._resuming: deque[_Place] = deque()
        self._pullers: deque[_Place] = deque()
        self._freed = trio.lowlevel.ParkingLot()

    def __repr__(self) -> str:
        return (
            f"<Slots free={self.free} promised={self.promised} running={self.running} "
            f"waiting={self.waiting}>"
        )

    @property
    def free(self) -> int:
        """Slots that are neither promised nor running; negative while promises are overdrawn."""
        return self.capacity - self.promised + self.standing - self.running

    async def run(self) -> None:
        """Hand slots out among several consumers, once in a turn, until cancelled.

        Each slot at once would be a pull of its own: with a hundred consumers a request per task.
        """
        while True:
            await self._freed.park()
            await trio.lowlevel.checkpoint()  # lets everything that ends in this turn free its slot
            self._hand_out()

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
        if share.promised:
            self._give_back(share, 1)
            if not share.promised:
                share.open_pulls = 0
        elif self.free <= 0:
            return False
        share.recent += 1  # also of what is handed back: the next pull shall have a slot for it
        if not self._may_run(share):
            return False
        share.running += 1
        self.running += 1
        if not share.open_pulls:
            self._wake()
        return True

    def returned(self, share: Share, credits_: int) -> None:
        """Take back the promises of a pull that ended without using them."""
        self._give_back(share, min(credits_, share.promised))
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
        if self._may_run(share):
            self._restart(share)
            return
        try:
            await self._park(self._resuming, share)
        except trio.Cancelled:
            self._restart(share)
            raise

    def _may_run(self, share: Share) -> bool:
        return self.running < self.capacity and share.running < share.limit

    def _restart(self, share: Share) -> None:
        self.waiting -= 1
        share.running += 1
        self.running += 1

    def _may_pull(self, share: Share) -> bool:
        if self._resuming or share.room <= 0:
            return False
        if self._is_idle(share):
            return not share.promised and self.running < self.capacity
        return self.free > 0 and share.open_pulls < MAX_OPEN_PULLS

    def _is_idle(self, share: Share) -> bool:
        return not share.recent and len(self.shares) > 1

    def _grant(self, share: Share) -> int:
        batch = min(self.free, share.room)
        if len(self.shares) > 1:
            fair = max(self.free // (1 + len(self._pullers)), WORTH)
            idle = self.capacity // (IDLE_PART * len(self.shares))
            batch = max(1, min(batch, max(idle, min(2 * share.recent, fair))))
        if batch == 1 and self._is_idle(share):
            share.standing = True
            self.standing += 1
        share.promised += batch
        share.open_pulls += 1
        share.recent = 0
        self.promised += batch
        return batch

    def _give_back(self, share: Share, credits_: int) -> None:
        share.promised -= credits_
        self.promised -= credits_
        if share.standing and not share.promised:
            share.standing = False
            self.standing -= 1

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
        for place in list(self._resuming):
            if self._may_run(place[1]):
                self._resuming.remove(place)
                self._restart(place[1])
                trio.lowlevel.reschedule(place[0])
        if not self._pullers or self.running >= self.capacity:
            return
        if len(self.shares) == 1:
            self._hand_out()
        else:
            self._freed.unpark_all()

    def _hand_out(self) -> None:
        """Promise what is free to those who wait, in their order."""
        for place in list(self._pullers):
            if self._may_pull(place[1]):
                self._pullers.remove(place)
                trio.lowlevel.reschedule(place[0], outcome.Value(self._grant(place[1])))
