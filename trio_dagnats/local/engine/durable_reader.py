"""One of the engine's durables: its messages, as many in hand as there are credits.

Credits bound what is in memory: a message that was delivered holds one until it is dealt with,
so at most ``CREDITS`` wait in all lanes of this feed together. That is also the bound of the
lanes.

::

    CREDITS = free here + asked for in open pulls + messages in hand

Where they are when something is lost: a pull that expires brings its rest back (``returned``).
After a reconnect the transport asks again for what is open, so nothing comes back and nothing is
lost. A durable that is gone is made again after a pause and begins at the beginning: what is
applied already changes nothing.
"""

from collections.abc import Callable
from functools import partial
from typing import final

import trio

from trio_dagnats.local.engine.resources import durable
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.transport.port import Broker, Delivery, PullEnd

CREDITS = 256
EXPIRES = 30.0
"""Seconds of one pull; only how often an idle engine asks depends on it."""
PAUSE = 0.2
"""Seconds before pulling again from a durable that was gone or refused to serve."""


@final
class DurableReader:
    """Pulls from a durable for as long as :meth:`run` runs.

    All methods but :meth:`run` are called from callbacks and never wait. ``run`` is woken by a
    parking lot and not an event, because only one task ever waits and it looks at everything
    when it wakes.

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
        """See ``port.IntakeSink``.

        What ``take`` raises is logged by the transport; the credit must not be lost by it.
        """
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
        """Give a credit back: one message is dealt with.

        The next pull is asked for when half of the credits are free, or nothing is in hand: one
        pull for many messages, and none that waits for a slow lane.
        """
        self._in_hand -= 1
        self._free += 1
        if not self._in_hand or self._free >= CREDITS // 2:
            self._changed.unpark_all()

    async def run(self, broker: Broker, name: str) -> None:
        """Pull from one of the engine's durables until cancelled.

        Cancellation: the pulls are taken back and what was on its way is handed back, within 5
        seconds.

        Raises:
            BrokerError: the durable could not be made; that ends the engine.
        """
        spec = durable(name)
        ensure = partial(broker.ensure_consumer, spec)
        await ensure(deadline=deadline_in())
        async with broker.intake(spec.stream, spec.durable, self) as intake:
            while True:
                if self._free:
                    intake.pull(self._free, EXPIRES)
                    self._free = 0
                await self._changed.park()
                if self._troubled:
                    await trio.sleep(PAUSE)
                    await ensure(deadline=deadline_in())
                    self._troubled = False
