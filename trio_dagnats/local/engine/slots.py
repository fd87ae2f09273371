"""Slots: how many runs of a workflow, or tasks of a type, go on at once (``max_*``).

Who holds a slot, and who waits for one in which order, stands in a bucket under a key each, so
that nothing has to be counted in the stored runs. A slot is granted by a timer's message that is
due at once: it reaches the run the way all timers do, whatever dies in between.

A slot from its wish to its end, and who writes what::

    core      Kind.SLOT_WANTED           the run has taken a name for it: <run>.<step>.task_slot
    want      bucket: waiting            stored first, so a crash forgets no place in the line
    _fill     memory: held               as many as the limit allows, the earliest first
    _grant    bucket: held               then the timer's message, whose id is the slot's name
    core      the timer fires            the task goes on; the run keeps the slot
    core      Kind.SLOT_FREED            its step is over, or the run
    free      bucket: deleted            and the next one is granted

The bucket and memory may differ after an error in between. That is mended by whoever comes next:
``_untold`` remembers who has a slot and has not been told, and every call tells all of them.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Literal, final

import trio
from pydantic import BaseModel, ConfigDict, ValidationError

from trio_dagnats.local.engine.core.state import Action, Effect, RunState
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.ids import Id, IdOrEmpty
from trio_dagnats.wire.subjects import is_key
from trio_dagnats.wire.text import NS, compact

BUCKETS = {Action.RUN_SLOT: "concurrency_runs", Action.TASK_SLOT: "concurrency_tasks"}
"""The DagNats engine keeps counters in the same buckets. They are no claims, and are left alone."""


@final
class Claim(BaseModel):
    """A slot that is held or waited for; ``since_ns`` is its place: the earliest goes first.

    Attributes:
        pool: what is shared: the workflow's name, or the task type.
        limit: how many may hold one, as the claimant's own definition says.
        action: which kind of slot, which is also the timer that grants it.
        run_id: who claims.
        step_id: the step or the instance of a map; empty for a run.
        since_ns: its place, nanoseconds since the epoch, earlier for a run with priority.
        held: whether it is held, or waited for.
    """

    model_config = ConfigDict(frozen=True)

    pool: str
    limit: int
    action: Literal[Action.RUN_SLOT, Action.TASK_SLOT]
    run_id: Id
    step_id: IdOrEmpty = ""
    since_ns: int = 0
    held: bool = False

    def grant(self) -> bytes:
        """Write the timer's message that tells the run.

        It is a timer of no duration, so the engine reads it like one that is due. That the
        slot's name is its message id is what the run knows it by, and what keeps a grant that is
        told twice from counting twice for two minutes; after that the run finds no such timer
        any more.
        """
        return compact(
            {
                "action": self.action.value,
                "run_id": self.run_id,
                "step_id": self.step_id or self.action.value,
                "duration_ms": 0,
            }
        )


@dataclass(slots=True)
class _Pool:
    """Who holds a slot of one pool and who waits, by the slots' names.

    ``_line`` is a heap that is not kept tidy: taking one out of the middle would be a search, so a
    name that waits no longer is skipped when it comes up.
    """

    held: dict[str, Claim] = field(default_factory=dict)
    waiting: dict[str, Claim] = field(default_factory=dict)
    _line: list[tuple[int, int, str]] = field(default_factory=list)
    _count: int = 0

    def wait(self, slot: str, claim: Claim) -> None:
        """Join the line; of two with the same place, the first one to come goes first."""
        self.waiting[slot] = claim
        self._count += 1
        heappush(self._line, (claim.since_ns, self._count, slot))

    def next(self) -> str | None:
        """Return whose turn it is, if there is room.

        The limit is that of the one whose turn it is: definitions of one pool may differ, after
        a change. Nobody overtakes it, though a later one might have a higher limit.
        """
        while self._line and self._line[0][2] not in self.waiting:
            heappop(self._line)  # it has its slot, or has given up
        slot = self._line[0][2] if self._line else None
        room = slot is not None and len(self.held) < self.waiting[slot].limit
        return slot if room else None


@final
class Slots:
    """Gives slots out. One engine serves a server, so what it knows is what is true.

    Called by the sender for runs side by side; ``_order`` lets one of them write at a time. All
    that is known is in memory, so a decision asks the server nothing.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._pools: defaultdict[tuple[Action, str], _Pool] = defaultdict(_Pool)
        self._where: dict[str, tuple[Action, str]] = {}
        self._untold: dict[str, Claim] = {}
        self._order = trio.Lock()
        """Puts and deletes of one key must reach the server in their order."""

    async def load(self) -> None:
        """Read who holds and who waits, and tell the holders again: we may have been killed.

        Called once, before any run is carried on. Claims are taken in the order of their
        revisions, so that those with the same place stand as they stood before.

        Raises:
            BrokerError: the server did not answer in time.
        """
        for bucket in BUCKETS.values():
            entries = await self._broker.kv_entries(bucket, deadline=deadline_in())
            for entry in sorted(entries, key=lambda entry: entry.revision):
                try:
                    claim = Claim.model_validate_json(entry.value)
                except ValidationError:
                    continue  # a counter of the DagNats engine
                if not is_key(entry.key):
                    continue
                self._keep(entry.key, claim)
        await self._grant()

    async def want(self, effect: Effect, state: RunState) -> None:
        """Ask for a slot; one that is asked for already keeps its place.

        Raises:
            BrokerError: not stored in time; asking again is safe.
        """
        slot = effect.msg_id
        async with self._order:
            if slot not in self._where:
                claim = _claim(effect, state)
                await self._put(slot, claim)
                self._keep(slot, claim)
            await self._grant()

    async def free(self, slot: str) -> None:
        """Free a slot, or give its place up, and let the next one go.

        Raises:
            BrokerError: not stored in time; freeing again is safe.
        """
        async with self._order:
            if slot in self._where:
                where = self._where[slot]
                await self._broker.kv_delete(BUCKETS[where[0]], slot, deadline=deadline_in())
                self._forget(slot, where)
            await self._grant()

    def _keep(self, slot: str, claim: Claim) -> None:
        """Enter a claim into memory, as held or waiting, and see whether somebody can go."""
        where = (claim.action, claim.pool)
        self._where[slot] = where
        pool = self._pools[where]
        if claim.held:
            pool.held[slot] = self._untold[slot] = claim
        else:
            pool.wait(slot, claim)
        self._fill(pool)

    def _forget(self, slot: str, where: tuple[Action, str]) -> None:
        """Take a claim out of memory, and see whether somebody can go.

        A pool that nobody holds a slot of has nobody waiting either, and is dropped.
        """
        self._where.pop(slot, None)
        self._untold.pop(slot, None)
        pool = self._pools[where]
        pool.held.pop(slot, None)
        pool.waiting.pop(slot, None)
        self._fill(pool)
        if not pool.held:
            del self._pools[where]

    def _fill(self, pool: _Pool) -> None:
        """Give slots to those whose turn it is while there is room; memory only."""
        while (slot := pool.next()) is not None:
            claim = pool.waiting.pop(slot).model_copy(update={"held": True})
            pool.held[slot] = self._untold[slot] = claim

    async def _grant(self) -> None:
        """Tell those who have got a slot, also those that an earlier try could not tell.

        Stored as held first and told second: a crash in between tells it again at the next
        start, for holders are always told then.
        """
        for slot, claim in list(self._untold.items()):
            await self._put(slot, claim)
            await self._tell(slot, claim)
            del self._untold[slot]

    async def _put(self, slot: str, claim: Claim) -> None:
        body = compact(claim)
        await self._broker.kv_put(BUCKETS[claim.action], slot, body, deadline=deadline_in())

    async def _tell(self, slot: str, claim: Claim) -> None:
        """Store the timer's message that is due at once."""
        subject = f"sleep.{claim.run_id}.{claim.step_id or claim.action.value}"
        await self._broker.store(subject, claim.grant(), msg_id=slot, deadline=deadline_in())


def _claim(effect: Effect, state: RunState) -> Claim:
    """Make the claim of a run or of a task, with its place in the line.

    A run's place is earlier by the seconds of its priority, as with the DagNats engine; tasks go in
    the order of asking.
    """
    definition, run_id = state.book.definition, state.run.run_id
    if effect.action is Action.RUN_SLOT:
        assert definition.concurrency is not None
        return Claim(
            pool=definition.name,
            limit=definition.concurrency.max_runs,
            action=Action.RUN_SLOT,
            run_id=run_id,
            since_ns=state.book.at_ns - state.run.priority_offset * NS,
        )
    step, _ = state.step_and_index(effect.step_id)
    return Claim(
        pool=step.task,
        limit=step.max_task_concurrency,
        action=Action.TASK_SLOT,
        run_id=run_id,
        step_id=effect.step_id,
        since_ns=state.book.at_ns,
    )
