"""Waiting for a signal: a register that is read, not a queue that is consumed (design 8.4).

A wait costs the server no consumer. A core subscription on the key's subject only wakes it (it
carries no revision); the value is read from the bucket, again after a reconnect, and now and then
all the same, as a net under lost wake-ups.
"""

import logging
from typing import final

import trio

from trio_dagnats.errors import NotStored
from trio_dagnats.transport.port import Broker, Entry, Message
from trio_dagnats.wire.names import BUCKET_SIGNALS, kv_subject, signal_key

log = logging.getLogger("trio_dagnats.worker")

POLL = 30.0
"""Seconds after which a wait looks at the bucket though nothing woke it."""
READ_PATIENCE = 5.0
PAUSE_AFTER_ERROR = 1.0


@final
class _News:
    """Remembers between two looks that something may have changed."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def heard(self, _message: Message | None) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._event.wait()

    def forget(self) -> None:
        self._event = trio.Event()


async def wait_for_entry(broker: Broker, run_id: str, name: str, newer_than: int) -> Entry:
    """Wait until the signal has a value of a revision greater than ``newer_than``; return it.

    A delete marker is no value (contract H25). Waits without a deadline of its own: the caller's
    scope ends it.

    Raises:
        Missing: no bucket ``signals`` on this server.
    """
    key = signal_key(run_id, name)
    while True:
        try:
            return await _listen(broker, key, newer_than)
        except NotStored as error:  # an outage ends no wait: the subscription is asked for again
            log.debug("signal %s is not listened for now: %s", key, error)
            await trio.sleep(PAUSE_AFTER_ERROR)


async def _listen(broker: Broker, key: str, newer_than: int) -> Entry:
    news = _News()
    async with broker.listen(kv_subject(BUCKET_SIGNALS, key), news.heard):
        while True:
            news.forget()
            try:
                entry = await broker.kv_get(
                    BUCKET_SIGNALS, key, deadline=trio.current_time() + READ_PATIENCE
                )
            except NotStored:  # no answer now; the reconnect, or the next poll, looks again
                entry = None
            if entry is not None and entry.revision > newer_than:
                return entry
            await news.wait(POLL)
