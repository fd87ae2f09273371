"""Runs that begin at a time (contract 9.4).

The DagNats engine stores them and never begins them: none of its binaries reads the messages that
wake (contract H35).

Two things are stored for such a run: a record in the bucket ``scheduled_runs``, which says
whether it is still wanted, and a message on ``scheduled.<run>``, which wakes the engine. To
cancel one is to change the record; the message comes all the same and finds that.
"""

from typing import final

from trio_dagnats.errors import UsageError, WireError
from trio_dagnats.local.engine.starts import find_definition, store_start
from trio_dagnats.logs import Log
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.scheduled import BUCKET_SCHEDULED, ScheduledRun
from trio_dagnats.wire.text import NS

log = Log("trio_dagnats.local")


@final
class Schedule:
    """Begins scheduled runs. The message wakes; the record in the bucket says whether to begin."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def left(self, subject: str, body: bytes) -> float | None:
        """Return the seconds until a run begins, None for a message that is none."""
        try:
            due_ns = ScheduledRun.read(body).due_ns
        except WireError as error:
            log.warning("%s: %s; it is left out", subject, error)
            return None
        return (due_ns - self._broker.time_ns()) / NS

    async def begin(self, body: bytes) -> None:
        """Begin a run, unless it was cancelled or has begun.

        The start is stored first and the record deleted second. A crash in between begins
        nothing twice: the start is stored only on a history that is still empty.

        Raises:
            BrokerError: the server did not answer in time; beginning again is safe.
        """
        run_id = ScheduledRun.read(body).run_id
        entry = await self._broker.kv_get(BUCKET_SCHEDULED, run_id, deadline=deadline_in())
        if entry is None:
            return
        run = ScheduledRun.read(entry.value)
        if run.status == "scheduled":
            payload = await self._payload(run)
            await store_start(self._broker, run_id, payload, only_once=True)
        await self._broker.kv_delete(BUCKET_SCHEDULED, run_id, deadline=deadline_in())

    async def _payload(self, run: ScheduledRun) -> dict[str, object]:
        """Return what the run begins with; a workflow that is gone fails the run, by its name."""
        try:
            definition = await find_definition(self._broker, run.workflow_id)
        except UsageError:
            definition = None
        if definition is None:
            return {"trigger": "scheduled", "workflow_id": run.workflow_id, "data": run.input}
        payload: dict[str, object] = {"workflow_def": definition.to_wire()}
        return payload if run.input is None else {**payload, "input": run.input}
