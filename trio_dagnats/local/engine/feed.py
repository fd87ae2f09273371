"""One of the engine's durables: its messages, as many in hand as there are credits."""

from collections.abc import Callable
from functools import partial
from typing import final

import trio

from trio_dagnats.local.engine.resources import durable
from trio_dagnats.transport.patience import soon
from trio_dagnats.transport.port import Broker, Delivery, PullEnd
from trio_dagnats.wire.text import NS

CREDITS = 256
EXPIRES = 30.0
PAUSE = 0.2
"""Seconds before pulling again from a durable that was gone or refused to serve."""


@final
class Feed:
    """Pulls from a durable for as long as :meth:`run` runs.

    Args:
        take: gets each message; whoever it gives it to calls :meth:`done` afterwards.
    """

    def __init__(self, take: Callable[[Delivery], None]) -> None:
        self._take = take
        self._free = CREDITS
        self._in_hand = 0
        self._troubled = False
        self._changed = trio.lowlevel.ParkingLot()

    def delivered(self, delivery: Delivery) -> None:
        """See ``port.IntakeSink``."""
        self._in_hand += 1
        try:
            self._take(delivery)
        except Exception:
            self.done()
            raise

    def returned(self, count: int, why: PullEnd) -> None:
        """See ``port.IntakeSink``."""
        self._free += count
        self._troubled = why is not PullEnd.EXPIRED
        self._changed.unpark_all()

    def done(self) -> None:
        """Give a credit back: one message is dealt with."""
        self._in_hand -= 1
        self._free += 1
        if not self._in_hand or self._free >= CREDITS // 2:
            self._changed.unpark_all()

    async def run(self, broker: Broker, name: str) -> None:
        """Pull from one of the engine's durables until cancelled."""
        spec = durable(name)
        ensure = partial(broker.ensure_consumer, spec)
        state = await ensure(deadline=soon())
        async with broker.intake(spec.stream, spec.durable, self) as intake:
            while True:
                if self._free:
                    batch = min(self._free, state.max_batch or CREDITS)
                    intake.pull(batch, min(EXPIRES, state.max_expires_ns / NS or EXPIRES))
                    self._free -= batch
                await self._changed.park()
                if self._troubled:
                    await trio.sleep(PAUSE)
                    state = await ensure(deadline=soon())
                    self._troubled = False
