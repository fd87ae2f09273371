"""Runs in the bucket ``workflow_runs``, and the few that are in memory.

Written by the conductor only. Each write names the revision that was read or written last: two
engines on one server, or anybody who edits a run, are found out by it instead of overwriting
each other.
"""

from typing import final

from trio_dagnats.errors import Conflict, EngineError, WireError
from trio_dagnats.local.engine.core.state import RunState
from trio_dagnats.logs import Log
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.names import BUCKET_RUNS, run_key

log = Log("trio_dagnats.local")


@final
class Runs:
    """Loads and saves runs. A run that goes on stays in memory, one that has ended does not.

    Bounded by the runs that go on: :meth:`forget` is called when one has ended and its effects
    are sent, or when a write did not succeed and nobody knows what is stored.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._known: dict[str, tuple[RunState, int]] = {}

    def known(self, run_id: str) -> RunState | None:
        """Return a run that is in memory."""
        return self._known[run_id][0] if run_id in self._known else None

    async def load(self, run_id: str) -> RunState | None:
        """Read a run from the server; None if there is none, or if it is not this engine's.

        Raises:
            BrokerError: the server did not answer in time.
        """
        found = await self._read(run_id)
        if found is None:
            return None
        state, revision = found
        self._keep(run_id, state, revision)
        return state

    async def peek(self, run_id: str) -> RunState | None:
        """Look at a run that another lane carries on; None if there is none, or not ours.

        Raises:
            BrokerError: the server did not answer in time.
        """
        known = self.known(run_id)
        if known is not None:
            return known
        found = await self._read(run_id)
        return None if found is None else found[0]

    async def _read(self, run_id: str) -> tuple[RunState, int] | None:
        entry = await self._broker.kv_get(BUCKET_RUNS, run_key(run_id), deadline=deadline_in())
        if entry is None:
            return None
        try:
            return RunState.read(entry.value), entry.revision
        except WireError as error:
            log.warning("%s; it is left alone", error, extra={"run": run_id})
            return None

    async def save(self, state: RunState) -> None:
        """Write a run, if nobody else has written it since it was loaded.

        The revision is kept for the next write. ``expect=0`` means that no such key exists.

        Raises:
            EngineError: somebody else has: another engine serves this server.
            TooLarge: it does not fit the server's ``max_payload``.
            NotStored: not acknowledged in time; it may be stored.
        """
        run_id = state.run.run_id
        expect = self._known[run_id][1] if run_id in self._known else 0
        body = state.to_bytes()
        try:
            revision = await self._broker.kv_put(
                BUCKET_RUNS, run_key(run_id), body, expect=expect, deadline=deadline_in()
            )
        except Conflict as conflict:
            revision = await self._revision_of_our_own(run_id, body, conflict)
        self._keep(run_id, state, revision)

    def forget(self, run_id: str) -> None:
        """Drop a run from memory, to be loaded again."""
        self._known.pop(run_id, None)

    async def _revision_of_our_own(self, run_id: str, body: bytes, conflict: Conflict) -> int:
        """Tell our own write, sent twice around a lost connection, from somebody else's."""
        entry = await self._broker.kv_get(BUCKET_RUNS, run_key(run_id), deadline=deadline_in())
        if entry is None or entry.value != body:
            raise EngineError(
                f"run {run_id} was written by somebody else: is another engine running on this "
                "server? Stop one of them"
            ) from conflict
        return entry.revision

    def _keep(self, run_id: str, state: RunState, revision: int) -> None:
        # One that has ended stays until the lane forgets it, when its effects are sent.
        self._known[run_id] = (state, revision)
