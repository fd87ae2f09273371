"""The ledger of slots: how many attempts may run, and which pulls may promise to bring more.

A promise is a credit of an open pull: nothing is asked for that could not run at once (design 8.8,
contract H2), so ``free + promised + running == capacity``, standing promises left out::

    free ──promise──> promised ──arrived──> running ──ended──> free
     ^                    │                  │   ^
     └──────returned──────┘          suspend │   │ resume
                                             v   │
                                            waiting, which has no slot

| call | who calls it, and when | free | promised | running | waiting |
|---|---|---:|---:|---:|---:|
| ``promise`` | ``Consumer.run``, before each pull | -n | +n | | |
| ``arrived`` | ``Consumer.delivered``, for each message | | -1 | +1 | |
| ``returned`` | ``Consumer.returned``: the pull has ended, or was refused | +n | -n | | |
| ``ended`` | ``InFlight.leave``, and deliveries that become no attempt | +1 | | -1 | |
| ``suspend`` | ``Waiting``, when all of an attempt begins to wait | +1 | | -1 | +1 |
| ``resume`` | ``Waiting``, at the end of that | -1 | | +1 | -1 |

A lost connection changes nothing in here: the transport keeps the account of credits and asks for
the rest again after the reconnect (``Intake.pull``), so the promises stand meanwhile.

Two things may overdraw the ledger, and what arrives while all slots run is then handed back at
once:

- An attempt that waits as a whole (pause, signal) gives its slot up and is only counted. When it
  resumes it takes a free slot, or one that is merely promised, for a pull can last half a minute.
- Among many consumers an idle one has a standing credit that no slot is kept for. Kept ones would
  leave none to the busy consumers: ten idle task types can wait on eight slots.

Among several consumers no slot waits where nothing comes. Each has one pull at a time. If it knows
of messages (each delivery says how many are left), that is a turn: for so many, at most; it ends as
soon as there is no more. If it knows of none, the pull waits for them on the consumer's reserve::

    idle: waits on its reserve, or on a standing credit <──┐
      │                                                    │ the pull has brought nothing (more)
      └─ promises used up, and the server has more ──> in a turn ──┐
                                                           ^       │ used up, and still more:
                                                           └───────┘ the next turn

The obvious way, a fixed part of the slots for each consumer, was not taken: a busy consumer would
wait while the slots of idle ones stand empty, and there can be more consumers than slots.

Everything here is called in one trio thread, and only the coroutines wait: each other call sees and
leaves a ledger that adds up. The waits are plain trio parking; no I/O.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import final

import trio

from trio_dagnats.worker.intake.pull_sizes import Pace, pull_size
from trio_dagnats.worker.intake.waiting_line import WaitQueue

MAX_OPEN_PULLS = 2
"""Rule D6: a second pull asks for what came free while the first one was under way; a third one
would only make the server's list of waiting pulls longer."""

RESERVE_PART = 4
"""The reserves of all consumers together are this part (a quarter) of the slots."""


@final
class Quota:
    """How many attempts of one handler may run at once, over all of its consumers.

    Made by ``service`` for each handler, changed by :class:`Slots` only, together with the numbers
    of the share that it is about.

    Attributes:
        limit: so many.
        promised: slots that its consumers' pulls may still use.
        running: its attempts that run.
    """

    __slots__ = ("limit", "promised", "running")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.promised = 0
        self.running = 0

    @property
    def room(self) -> int:
        """Slots that may still be promised."""
        return self.limit - self.promised - self.running


@final
@dataclass(slots=True, eq=False)
class Share:
    """One consumer's part of the ledger.

    Written by :class:`Slots` only; but ``backlog`` and ``left_behind`` get their first values from
    ``Consumer``, which knows the server. All numbers count messages or attempts.

    Attributes:
        quota: what all consumers of its handler have together.
        left_behind: says how many messages the server had left when it sent the last one.
        backlog: messages that the server is known to have, less those asked for since.
        quantum: what its turn has left, because too few slots were free for all of it.
        promised: credits of its open pulls.
        for_backlog: whether its last pull is for known messages; it must not wait for others.
        standing: whether its one promise is a standing credit, which has no slot.
        running: its attempts that have a slot.
        open_pulls: pulls that have not ended as far as is known: messages do not say which pull
            they answer, so it is exact only when nothing is promised any more.
        behind: a pull that has to wait for the end of the one under way.
    """

    quota: Quota
    left_behind: Callable[[], int] = int
    backlog: int = 0
    quantum: int = 0
    promised: int = 0
    for_backlog: bool = False
    standing: bool = False
    running: int = 0
    open_pulls: int = 0
    behind: "WaitQueue[Share]" = field(default_factory=WaitQueue)


@final
class Slots:
    """The slots of one worker.

    Args:
        capacity: attempts that may run at once, over all consumers.

    Attributes:
        promised: credits of all open pulls, the standing ones included.
        standing: those of them that have no slot.
        running: attempts that have a slot.
        waiting: attempts that have given theirs up; only counted.
        shares: the parts of the consumers. With one alone slots are handed out at once, as they
            come free; with several, once in each of trio's turns.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.promised = 0
        self.standing = 0
        self.running = 0
        self.waiting = 0
        self.shares: list[Share] = []
        self._pace = Pace()
        self._resuming: WaitQueue[Share] = WaitQueue()
        self._pullers: WaitQueue[Share] = WaitQueue()
        self._idle: trio.lowlevel.Task | None = None

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
            self._idle = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._leave)
            await trio.lowlevel.checkpoint()  # lets everything that ends in this turn free its slot
            self._pace.take()
            self._hand_out()

    def _leave(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        self._idle = None
        return trio.lowlevel.Abort.SUCCEEDED

    def quota(self, limit: int | None) -> Quota:
        """Make the bound of one handler's attempts, None for the whole capacity."""
        return Quota(min(limit or self.capacity, self.capacity))

    def share(self, quota: Quota) -> Share:
        """Add a consumer of the handler that has this quota."""
        share = Share(quota)
        self.shares.append(share)
        return share

    async def promise(self, share: Share) -> int:
        """Wait until this consumer may pull, and promise it the slots of one pull (at least 1).

        Cancellation: nothing is promised.
        """
        await trio.lowlevel.checkpoint()  # lets everything that ends in this turn free its slot
        if self._may_pull(share):
            return self._grant(share)
        line = share.behind if share.promised and len(self.shares) > 1 else self._pullers
        return await line.wait(share, first=share.quantum > 0)

    def arrived(self, share: Share) -> bool:
        """Turn a promise into a running attempt; False if there is no slot for it.

        What has no slot the caller hands back, which is the price of an overdrawn promise.

        With the last promise of a pull its consumer asks the server's last delivery how many more
        there are: that is its backlog, and with it the next pull is a turn.

        A message without a promise (a pull that was given up as dead answered after all) takes
        a free slot if there is one.
        """
        if share.promised:
            self._give_back(share, 1)
            if not share.promised:
                share.open_pulls = 0
                share.backlog = share.left_behind()
        elif self.free <= 0:
            return False
        if not self._may_run(share):
            share.backlog += 1  # also that one shall have a slot next time
            self._wake()  # what its promise held may be another's
            return False
        share.quota.running += 1
        share.running += 1
        self.running += 1
        if not share.open_pulls:
            self._wake()
        return True

    def returned(self, share: Share, credits_: int) -> None:
        """Take back the promises of a pull that ended without using them.

        It brought nothing (more), so the consumer counts as idle from here on. More than is
        promised is not taken: a pull that was given up as dead may have answered after all, and
        its messages have used promises up.
        """
        self._give_back(share, min(credits_, share.promised))
        share.open_pulls = max(0, share.open_pulls - 1) if share.promised else 0
        share.backlog = 0
        self._wake()

    def ended(self, share: Share) -> None:
        """Free the slot of an attempt that ended."""
        share.quota.running -= 1
        share.running -= 1
        self._pace.ended()
        self.running -= 1
        self._wake()

    def suspend(self, share: Share) -> None:
        """Give up the slot of an attempt that waits as a whole."""
        self.waiting += 1
        self.ended(share)

    async def resume(self, share: Share) -> None:
        """Take a slot again, before any new pull.

        Waits only while all of them run, or as many of its handler as the quota of that allows,
        which keeps no other handler waiting.

        Cancellation: the attempt is running again all the same (it has to clean up), which may
        exceed the capacity for that moment.
        """
        if self._may_run(share):
            self._restart(share)
            return
        try:
            await self._resuming.wait(share)
        except trio.Cancelled:
            self._restart(share)
            raise

    def _may_run(self, share: Share) -> bool:
        return self.running < self.capacity and share.quota.running < share.quota.limit

    def _restart(self, share: Share) -> None:
        self.waiting -= 1
        share.quota.running += 1
        share.running += 1
        self.running += 1

    def _may_pull(self, share: Share) -> bool:
        if share.quota.room <= 0:
            return False
        if len(self.shares) == 1:
            return self.free > 0 and share.open_pulls < MAX_OPEN_PULLS
        if share.promised:  # a turn must be alone (Intake.pull), and a second pull is no faster
            return False
        return self.free > 0 if share.backlog else self.running < self.capacity

    def _grant(self, share: Share) -> int:
        batch = min(self.free, share.quota.room)
        if len(self.shares) > 1:
            share.for_backlog = share.backlog > 0
            batch = self._turn(share, batch) if share.for_backlog else self._reserve(share, batch)
        share.quota.promised += batch
        share.promised += batch
        share.open_pulls += 1
        self.promised += batch
        return batch

    def _turn(self, share: Share, most: int) -> int:
        """Return how many of the known messages may come now.

        A turn that finds too few slots keeps its rest, and its consumer goes to the beginning of
        the line: so no turn is shorter for having met a full worker.
        """
        if not share.quantum:
            busy = sum(1 for other in self.shares if other.backlog)
            share.quantum = pull_size(self.capacity, busy, self._pace.rate)
        batch = min(most, share.backlog, share.quantum)
        share.quantum -= batch
        share.backlog -= batch
        return batch

    def _reserve(self, share: Share, most: int) -> int:
        """Return for how many messages it may wait; for a single one without a slot."""
        batch = max(1, min(most, self.capacity // (RESERVE_PART * len(self.shares))))
        share.quantum = 0
        share.standing = batch == 1
        self.standing += share.standing
        return batch

    def _give_back(self, share: Share, credits_: int) -> None:
        share.quota.promised -= credits_
        share.promised -= credits_
        self.promised -= credits_
        if share.promised:
            return
        if share.standing:
            share.standing = False
            self.standing -= 1
        if share.behind:  # one that was idle comes next: a message of its own has just come
            share.behind[0].move(self._pullers, first=share.quantum > 0 or not share.for_backlog)

    def _wake(self) -> None:
        """Hand free slots out, accounted for at once: the woken task runs only a turn later."""
        if self._resuming:
            self._let_resume()
        if self.running >= self.capacity:
            return
        if len(self.shares) == 1:
            self._hand_out()
        elif self._idle is not None:  # also if nobody waits: it takes the pace
            idle, self._idle = self._idle, None
            trio.lowlevel.reschedule(idle)

    def _let_resume(self) -> None:
        for place in list(self._resuming):
            if self._may_run(place.whose):
                self._restart(place.whose)
                place.serve(1)

    def _hand_out(self) -> None:
        """Promise what is free to those who wait, in their order."""
        full = self.free <= 0
        for place in list(self._pullers):
            share = place.whose
            if full and share.backlog:  # for a hundred of them, a call for each would count
                continue
            if self._may_pull(share):
                place.serve(self._grant(share))
                full = self.free <= 0
