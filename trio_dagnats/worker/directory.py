"""The worker's entry in the directory: written first, kept fresh, deleted last (contract 8.1).

::

    is_alone ──> announce (before it is ready) ──> run: every EVERY s, announce ──> leave
                                                                     (no attempt is left)

People and the command line read it to know who works; the engine never does. So no trouble with it
stops a worker: it costs a warning. A worker that is killed is forgotten by the bucket, whose
entries end 60 s after they were written.

A worker itself reads it once, when it is about to make a durable: with nobody else there, what is
in its queue was delivered to nobody (``intake.consume``, ``made_alone``).
"""

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
"""Seconds for one write of the entry."""


@final
class Presence:
    """Keeps the directory entry of one worker.

    Only this worker writes the entry, under its own id: two of one id overwrite each other's.

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
        """Renew the entry, until cancelled.

        A helper of ``service``: it goes on through a whole drain, for a worker that still has
        attempts is there.
        """
        while True:
            await trio.sleep(EVERY)
            await self.announce()

    async def is_alone(self) -> bool:
        """Say whether no other worker is in the directory, nor was in its last minute.

        Asked before the own entry is written. What cannot be read says no.
        """
        try:
            return not await self._broker.kv_entries(
                BUCKET_WORKERS, deadline=trio.current_time() + PATIENCE
            )
        except BrokerError as error:
            log.debug("directory not read: %s", error)
            return False

    async def leave(self) -> None:
        """Delete the entry; the last thing a worker does on its connection.

        For ``LEAVE`` seconds at most: without an answer the entry ends by itself.
        """
        try:
            await self._broker.kv_delete(
                BUCKET_WORKERS,
                self._registration.worker_id,
                deadline=trio.current_time() + LEAVE,
            )
        except BrokerError as error:
            log.warning("directory entry not deleted, it ends by itself in 60 s: %s", error)


def describe(worker_id: str, task_types: tuple[str, ...], concurrency: int) -> WorkerRegistration:
    """Return the directory entry of this process.

    Args:
        worker_id: the worker's name.
        task_types: what it serves, each once.
        concurrency: attempts that it may run at once.
    """
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
