"""Singletons: one run of a workflow at a time, or one for each value of a key (contract 6.2).

Who holds a lock stands in the bucket ``singleton_locks``. It is taken before its run is stored; the
run's start stays in the history until then, so that an engine that is killed in between finds the
lock its own again.
"""

from typing import Literal, Self, final

import trio
from pydantic import BaseModel, ConfigDict, ValidationError

from trio_dagnats.errors import WireError
from trio_dagnats.local.engine.core.values.paths import key_part, printed, walk
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.definitions.workflow import WorkflowDef
from trio_dagnats.wire.ids import IdOrEmpty
from trio_dagnats.wire.names import BUCKET_RUNS, WORKFLOW_HISTORY, history_subject, run_key
from trio_dagnats.wire.run import WorkflowRun
from trio_dagnats.wire.text import compact

BUCKET = "singleton_locks"
"""Keys as :func:`lock_key` has them; the value names the run, and whom it replaces."""


@final
class Lock(BaseModel):
    """Which run holds a lock, and which one it has taken it from."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_id: IdOrEmpty = ""
    replaces: IdOrEmpty = ""

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """Read a stored lock; what is none is nobody's."""
        try:
            return cls.model_validate_json(raw)
        except ValidationError:
            return cls()


@final
class Locks:
    """Gives locks to runs. One engine serves a server, so nobody else changes them.

    ``_order`` makes read and write of a claim one thing: two runs of a workflow have lanes of
    their own and claim side by side.

    ``replaces`` is stored because a claim may be made twice around a crash: the second time the
    lock is the run's own already, and it must still learn whom it has to cancel.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._order = trio.Lock()
        self._coming: set[str] = set()
        """Runs that have a lock and may not be stored yet."""

    async def claim(self, key: str, run_id: str, mode: Literal["skip", "cancel"]) -> str:
        """Take a lock; return the run that is in the way, empty if there is none.

        In the mode ``skip`` that run keeps the lock, in the mode ``cancel`` it has lost it.

        Called by the conductor before a run's first transition. A lock whose holder has ended,
        or never came to be, is taken over: nobody has to have freed it.

        Raises:
            BrokerError: the server did not answer in time; claiming again is safe.
        """
        async with self._order:
            entry = await self._broker.kv_get(BUCKET, key, deadline=deadline_in())
            lock = Lock.read(entry.value) if entry is not None else Lock()
            if lock.run_id == run_id:
                return lock.replaces
            holder = lock.run_id if await self._goes_on(lock.run_id) else ""
            if holder and mode == "skip":
                return holder
            body = compact(Lock(run_id=run_id, replaces=holder).model_dump(exclude_defaults=True))
            await self._broker.kv_put(BUCKET, key, body, deadline=deadline_in())
            self._coming.add(run_id)
            return holder

    async def free(self, key: str, run_id: str) -> None:
        """Let a run's lock go, if it still has it.

        Called by the sender at the run's end. In the mode ``cancel`` another run may have the
        lock by then; it keeps it.

        Raises:
            BrokerError: the server did not answer in time; freeing again is safe.
        """
        async with self._order:
            entry = await self._broker.kv_get(BUCKET, key, deadline=deadline_in())
            if entry is not None and Lock.read(entry.value).run_id == run_id:
                await self._broker.kv_delete(BUCKET, key, deadline=deadline_in())
            self._coming.discard(run_id)

    async def _goes_on(self, run_id: str) -> bool:
        """Say whether a run holds its lock by right.

        It does if it is stored and not over, or about to be stored: it has claimed in this
        engine, or its start is in the history, because an engine was killed after the claim.
        """
        if not run_id:
            return False
        entry = await self._broker.kv_get(BUCKET_RUNS, run_key(run_id), deadline=deadline_in())
        if entry is not None:
            try:
                return not WorkflowRun.read(entry.value).status.is_terminal
            except WireError:
                return False
        if run_id in self._coming:
            return True
        subject = history_subject(run_id)
        return (
            await self._broker.last_record(WORKFLOW_HISTORY, subject, deadline=deadline_in())
            is not None
        )


def lock_key(definition: WorkflowDef, given: object) -> str:
    """Return the key of the lock of a workflow's run; the workflow's own if the input has none."""
    assert definition.singleton is not None
    path = definition.singleton.key
    found, value = walk(path, given) if path else (False, None)
    return f"{definition.name}.{key_part(printed(value))}" if found else definition.name
