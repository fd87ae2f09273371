"""The worker's entry in the directory: written first, kept fresh, deleted last (contract 8.1)."""

import os
import socket
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import final

import trio

from trio_dagnats.errors import BrokerError
from trio_dagnats.logs import Log
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.names import BUCKET_WORKERS
from trio_dagnats.wire.registration import WorkerRegistration
from trio_dagnats.wire.text import NS
from trio_dagnats.worker.deadlines import LEAVE

log = Log("trio_dagnats.worker")

EVERY = 30.0
"""Seconds between two writes; the bucket forgets an entry after 60 (contract 1.3)."""
PATIENCE = 5.0


@final
class Presence:
    """Keeps the directory entry of one worker.

    Args:
        broker: the connected server.
        registration: the entry; ``last_seen`` is stamped at every write.
    """

    def __init__(self, broker: Broker, registration: WorkerRegistration) -> None:
        self._broker = broker
        self._registration = registration

    async def announce(self) -> None:
        """Write the entry; a server without the bucket just has no directory (contract 1.3)."""
        now = datetime.fromtimestamp(self._broker.time_ns() / NS, UTC)
        entry = self._registration.model_copy(update={"last_seen": now.isoformat()})
        try:
            await self._broker.kv_put(
                BUCKET_WORKERS,
                entry.worker_id,
                entry.to_bytes(),
                deadline=trio.current_time() + PATIENCE,
            )
        except BrokerError as error:
            log.warning("directory entry not written: %s", error)

    async def run(self) -> None:
        """Renew the entry, until cancelled."""
        while True:
            await trio.sleep(EVERY)
            await self.announce()

    async def is_alone(self) -> bool:
        """Say whether no other worker is in the directory, nor was in its last minute."""
        try:
            return not await self._broker.kv_entries(
                BUCKET_WORKERS, deadline=trio.current_time() + PATIENCE
            )
        except BrokerError as error:
            log.debug("directory not read: %s", error)
            return False

    async def leave(self) -> None:
        """Delete the entry; the last thing a worker does on its connection."""
        try:
            await self._broker.kv_delete(
                BUCKET_WORKERS,
                self._registration.worker_id,
                deadline=trio.current_time() + LEAVE,
            )
        except BrokerError as error:
            log.warning("directory entry not deleted, it ends by itself in 60 s: %s", error)


def describe(worker_id: str, task_types: tuple[str, ...], concurrency: int) -> WorkerRegistration:
    """Return the directory entry of this process."""
    return WorkerRegistration(
        worker_id=worker_id,
        task_types=task_types,
        max_tasks=concurrency,
        pid=os.getpid(),
        hostname=socket.gethostname() or "unknown",
        version=_version(),
        last_seen="",
    )


@cache
def _version() -> str:
    """Return our version: reading the metadata takes a millisecond."""
    return version("trio-dagnats")
