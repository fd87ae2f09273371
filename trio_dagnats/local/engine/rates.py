"""Rate limits: whose turn it is when, kept in the bucket ``rate_limits``.

A bucket of tokens per task type, or per task type and value of a key. Tokens are taken at the
time of asking, and whoever asks is told how long to wait; so there is no list of who waits, and
no moment at which one has to be woken. A timer does that, whatever dies in between.
"""

from typing import final

from trio_dagnats.errors import WireError
from trio_dagnats.local.engine.core.ratelimit import TokenBucket
from trio_dagnats.local.engine.core.state import (
    Effect,
    RunState,
)
from trio_dagnats.local.engine.core.values.paths import key_part
from trio_dagnats.logs import Log
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.text import compact

log = Log("trio_dagnats.local")

BUCKET = "rate_limits"
GLOBAL = "_global"
"""Stands where a keyed limit has the value of its key."""
MOST_KNOWN = 10_000
"""Keys that are kept in memory; the others are read again when they are needed."""
MS = 1_000_000


@final
class Rates:
    """Gives turns out: each task is told when to go, in the order of asking.

    Written by the lanes of all runs side by side. Between the look at a bucket and its new value
    in memory nothing waits, so no turn is given twice; the write to the server comes after that.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._known: dict[str, TokenBucket] = {}

    async def turn(self, effect: Effect, state: RunState) -> int:
        """Return the milliseconds until the effect's task may go, and note that it will.

        Called by the sender once for each task under a limit. The memory goes first and the
        server second: a crash in between forgets the turn, and whoever was to get it asks again.

        What it takes is one token, or the ``units`` of a keyed limit.

        Raises:
            BrokerError: not stored in time; asking again costs a turn.
        """
        step, _ = state.step_and_index(effect.step_id)
        limit = step.keyed_rate_limit or step.rate_limit
        assert limit is not None  # only limited steps ask
        units = step.keyed_rate_limit.units if step.keyed_rate_limit else 1
        key = bucket_key(step.task, effect.text if step.keyed_rate_limit else GLOBAL)
        now_ns = self._broker.time_ns()
        if key not in self._known:
            read = await self._read(key)
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known.setdefault(key, read or TokenBucket.full(limit.limit, limit.period, now_ns))
        bucket, wait_ns = self._known[key].take(units, limit.limit, limit.period, now_ns)
        self._known[key] = bucket
        await self._broker.kv_put(BUCKET, key, compact(bucket), deadline=deadline_in())
        return -(-wait_ns // MS)

    async def _read(self, key: str) -> TokenBucket | None:
        """What cannot be read begins anew, full: a limit must not stop tasks for ever."""
        entry = await self._broker.kv_get(BUCKET, key, deadline=deadline_in())
        if entry is None:
            return None
        try:
            return TokenBucket.read(entry.value)
        except WireError as error:
            log.warning("%s: %s; it begins anew", key, error)
            return None


def bucket_key(task: str, key: str) -> str:
    """Return a bucket's key; what is not legal there stands as its hash."""
    return f"{key_part(task)}.{key_part(key)}"
