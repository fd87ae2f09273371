"""Waiting for a signal: a register that is read, not a queue that is consumed (design 8.4).

A wait costs the server no consumer. A core subscription on the key's subject only wakes it (it
carries no revision); the value is read from the bucket, again after a reconnect, and now and then
all the same, as a net under lost wake-ups.
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import final

import trio

from trio_dagnats.errors import NotStored
from trio_dagnats.logs import Log
from trio_dagnats.transport.news import News
from trio_dagnats.transport.port import Broker, Entry
from trio_dagnats.wire.names import BUCKET_SIGNALS, kv_subject, signal_key

log = Log("trio_dagnats.worker")

POLL = 30.0
"""Seconds after which a wait looks at the bucket though nothing woke it."""
LOOK_AGAIN = (0.02, 0.1, 0.5)
"""Seconds between looks after a wake-up that found nothing: who is woken may be faster than a
cluster that is still storing the value."""
READ_PATIENCE = 5.0
READS_AT_ONCE = 64
"""Values that a worker reads at once: after a reconnect it wants those of all its waits."""
PAUSE_AFTER_ERROR = 1.0


@final
class SignalRegister:
    """A signal of a run, for values of a revision greater than ``newer_than``.

    All registers of a worker share ``reads``, or a server that is asked for thousands of values at
    the same time would answer none of them in time.

    Made for one wait, and forgotten after it. Whose value it was is not remembered here but in the
    attempt's memory (``attempts.memory``), from which ``newer_than`` comes.
    """

    def __init__(
        self,
        broker: Broker,
        run_id: str,
        name: str,
        newer_than: int,
        reads: trio.CapacityLimiter | None = None,
    ) -> None:
        self._broker = broker
        self._reads = reads or trio.CapacityLimiter(1)
        self._unsure = False
        self._key = signal_key(run_id, name)
        self._newer_than = newer_than
        self._news = News()

    async def look(self) -> Entry | None:
        """Read the value; None if it is not new, or the server does not answer in time.

        A delete marker is no value (contract H25).

        Raises:
            Missing: no bucket ``signals`` on this server.
        """
        self._news.forget()
        self._unsure = False
        try:
            async with self._reads:
                deadline = trio.current_time() + READ_PATIENCE
                entry = await self._broker.kv_get(BUCKET_SIGNALS, self._key, deadline=deadline)
        except NotStored:
            self._unsure = True
            return None
        return entry if entry is not None and entry.revision > self._newer_than else None

    async def wait(self, begins: Callable[[], Awaitable[None]] | None = None) -> Entry:
        """Wait until there is a new value; the caller's scope ends it.

        Args:
            begins: called when there is none yet, so that it is a wait indeed.

        Raises:
            Missing: no bucket ``signals`` on this server.
        """
        while True:
            try:
                return await self._listen(begins)
            except (
                NotStored
            ) as error:  # an outage ends no wait: the subscription is asked for again
                log.debug("signal %s is not listened for now: %s", self._key, error)
                await trio.sleep(PAUSE_AFTER_ERROR)

    async def _listen(self, begins: Callable[[], Awaitable[None]] | None) -> Entry:
        pauses: Iterator[float] = iter(())
        async with self._broker.listen(kv_subject(BUCKET_SIGNALS, self._key), self._news.hear):
            while (entry := await self.look()) is None:
                if begins is not None:
                    await begins()
                    begins = None
                seconds = PAUSE_AFTER_ERROR if self._unsure else next(pauses, POLL)
                if await self._news.wait(seconds):
                    pauses = iter(LOOK_AGAIN)
            return entry
