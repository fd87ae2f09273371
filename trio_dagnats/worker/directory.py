"""The worker's entry in the directory: written first, kept fresh, deleted last (contract 8.1).

::

    announce (before it is ready) ──> run: every EVERY s, announce and look after ──> leave
                                                                     (no attempt is left)

People and the command line read it to know who works; the engine never does. So no trouble with it
stops a worker: it costs a warning. A worker that is killed is forgotten by the bucket, whose
entries end 60 s after they were written.

The consumers are looked after here because this is a round that comes by anyway: a Go worker that
starts later resets ``max_ack_pending`` (contract H37), and nobody tells us.
"""

import os
import socket
from collections.abc import Sequence
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
from trio_dagnats.worker.intake.source import Found, Source, find

log = Log("trio_dagnats.worker")

EVERY = 30.0
"""Seconds between two writes; the bucket forgets an entry after 60 (contract 1.3)."""
PATIENCE = 5.0
"""Seconds for one write of the entry."""


@final
class Presence:
    """Keeps the directory entry of one worker, and looks after its consumers on the way.

    Only this worker writes the entry, under its own id: two of one id overwrite each other's.

    Args:
        broker: the connected server.
        registration: the entry; ``last_seen`` is stamped at every write.
        sources: what is kept in shape on the server.
    """

    def __init__(
        self, broker: Broker, registration: WorkerRegistration, sources: Sequence[Source]
    ) -> None:
        self._broker = broker
        self._registration = registration
        self._sources = sources
        self._warned = False

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
        """Renew the entry and look after the durables, until cancelled.

        A helper of ``service``: it goes on through a whole drain, for a worker that still has
        attempts is there.
        """
        while True:
            await trio.sleep(EVERY)
            await self.announce()
            await self._look_after()

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

    async def _look_after(self) -> None:
        """Ask once what consumers there are, and restore those of ours that were changed."""
        try:
            found = await find(self._sources)
        except BrokerError as error:
            log.warning("consumers not checked: %s", error)
            return
        for source in self._sources:
            await self._restore(source, found)

    async def _restore(self, source: Source, found: Found) -> None:
        """Restore one consumer; the first time that it was needed is told, with the reason."""
        try:
            changed = await source.restore(found)
        except BrokerError as error:
            log.warning("consumer of %s not checked: %s", source.served.task_type, error)
            return
        if changed and not self._warned:
            self._warned = True
            log.warning(
                "the consumer of %s was reset (a Go worker does so when it starts) and is "
                "restored: with max_ack_pending 1000, a thousand waiting tasks stop the task "
                "type, and a shorter ack_wait than this worker's ends its leases too early",
                source.served.task_type,
            )


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
