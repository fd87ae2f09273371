"""The look at a worker's consumers: now and then, and at once when something speaks for it.

An operator, a Go worker or a lost store can change a consumer, delete it, or make it or its whole
stream again. The counts of deliveries then begin anew, and so may the sequences: what looks like
the first delivery of a new task may be the second one of a task that still runs elsewhere.

A worker learns of it from the server's advisory (with all slots full no pull is out that would
end), from a pull that ends, from a task that is delivered again while it runs here, from a lost
connection, and from the look every ``EVERY`` seconds. Until it has looked it is sure of nothing.
"""

from collections.abc import Callable, Sequence
from typing import final

import trio

from trio_dagnats.errors import BrokerError
from trio_dagnats.logs import Log
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.transport.port import Broker, Message
from trio_dagnats.wire.names import consumer_deleted, stream_deleted
from trio_dagnats.worker.intake.consume import Consumer
from trio_dagnats.worker.intake.source import Found, Source, find

log = Log("trio_dagnats.worker")

EVERY = 30.0
"""Seconds between two looks that nothing speaks for."""
PAUSE_AFTER_ERROR = 2.0
APART = 1.0
"""Seconds between two looks, at least: what speaks for one speaks many times."""


@final
class Lookout:
    """Keeps the consumers in shape, and notices that one of them, or its stream, was made again.

    A helper of ``service``: it goes on through a whole drain, for attempts still have to be sure.

    Args:
        broker: the connected server.
        sources: what is kept in shape on the server.
        outlived: told at each look of each stream when it was made (wall clock, nanoseconds), which
            may be another one than before; must not wait.

    Attributes:
        consumers: those that pull from the sources; empty until they have been made.
    """

    def __init__(
        self, broker: Broker, sources: Sequence[Source], outlived: Callable[[str, int], None]
    ) -> None:
        self.consumers: list[Consumer] = []
        self._broker = broker
        self._streams = tuple(dict.fromkeys(source.stream for source in sources))
        self._outlived = outlived
        self._wanted = False
        self._asked = trio.lowlevel.ParkingLot()
        self._warned = False

    def look_soon(self) -> None:
        """Have a look as soon as possible; never waits."""
        self._wanted = True
        self._asked.unpark_all()

    async def run(self) -> None:
        """Look, until cancelled."""
        async with trio.open_nursery() as nursery:
            for stream in self._streams:
                nursery.start_soon(self._listen, consumer_deleted(stream, "*"))
                nursery.start_soon(self._listen, stream_deleted(stream))
            while True:
                with trio.move_on_after(EVERY):
                    while not self._wanted:
                        await self._asked.park()
                self._wanted = False
                try:
                    await self._look()
                except BrokerError as error:
                    log.warning("consumers not checked: %s", error)
                    self._wanted = True
                    await trio.sleep(PAUSE_AFTER_ERROR)
                await trio.sleep(APART)

    async def _listen(self, advisory: str) -> None:
        """Hear of deletions; without a subscription there are the other ways to learn of them."""
        while True:
            try:
                async with self._broker.listen(advisory, self._heard):
                    await trio.sleep_forever()
            except BrokerError as error:
                log.debug("%s is not listened to: %s", advisory, error)
            await trio.sleep(EVERY)

    def _heard(self, _message: Message | None) -> None:
        """Doubt all: a consumer was deleted, or the connection was lost and may have hidden it."""
        for consumer in self.consumers:
            consumer.doubt()

    async def _look(self) -> None:
        """Ask once what streams and consumers there are, and restore those that were changed."""
        made_ns = {
            stream: await self._broker.stream_made_ns(stream, deadline=deadline_in())
            for stream in self._streams
        }
        found = await find(consumer.source for consumer in self.consumers)
        for consumer in self.consumers:
            await self._restore(consumer, found)
        for stream, since in made_ns.items():
            self._outlived(stream, since)

    async def _restore(self, consumer: Consumer, found: Found) -> None:
        """Restore one consumer; the first time that it was needed is told, with the reason."""
        source = consumer.source
        try:
            state, changed = await source.restore(found)
        except BrokerError as error:
            log.warning("consumer of %s not checked: %s", source.served.task_type, error)
            self._wanted = True
            return
        consumer.know(state)
        if not self._wanted:  # else it may have been deleted since: it is looked at again
            consumer.trust(state)
        if changed and not self._warned:
            self._warned = True
            log.warning(
                "the consumer of %s was reset (a Go worker does so when it starts) and is "
                "restored: with max_ack_pending 1000, a thousand waiting tasks stop the task "
                "type, and a shorter ack_wait than this worker's ends its leases too early",
                source.served.task_type,
            )
