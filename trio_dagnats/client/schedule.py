"""Runs that begin later, stored as the DagNats command line stores them (contract 9.4).

Two writes: a record in ``scheduled_runs``, which says whether the run is still wanted, and a
message that wakes the engine. The record comes first, because a message without one begins
nothing. If the second write fails, the caller gets the error, and the record that is left does
no harm.
"""

import secrets
from datetime import datetime

from trio_dagnats.errors import Conflict, EngineError, Missing, UsageError
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.transport.port import Broker, Entry
from trio_dagnats.wire.names import SLEEP_TIMERS
from trio_dagnats.wire.scheduled import (
    BUCKET_SCHEDULED,
    MAX_AHEAD_NS,
    SCHEDULE_DURABLE,
    ScheduledRun,
)
from trio_dagnats.wire.text import compact, parse_rfc3339, rfc3339


async def schedule(broker: Broker, workflow_name: str, given: object, at: datetime) -> str:
    """Store a run that begins at a time; return its id.

    It is refused where nothing reads such messages: the durable that does is looked for, not the
    name of the engine, so one that learns it later is accepted.

    Raises:
        UsageError, EngineError, NotStored: as :meth:`Client.schedule` says.
    """
    now_ns = broker.time_ns()
    run = ScheduledRun(
        run_id=secrets.token_hex(16),
        workflow_id=workflow_name,
        input=given,
        run_at=_run_at(at, now_ns),
        created_at=rfc3339(now_ns),
    )
    durables = await broker.consumers(SLEEP_TIMERS, deadline=deadline_in())
    if not any(found.durable == SCHEDULE_DURABLE for found in durables):
        raise EngineError(
            "this engine would store the run and never begin it (DagNats v0.0.12 does not); start "
            "it from a scheduler of your own"
        )
    body = compact(run.to_wire())
    await broker.kv_put(BUCKET_SCHEDULED, run.run_id, body, deadline=deadline_in())
    await broker.store(run.subject, body, msg_id=run.subject, deadline=deadline_in())
    return run.run_id


async def is_scheduled(broker: Broker, run_id: str) -> bool:
    """Say whether a run is still to begin.

    Raises:
        NotStored: the server did not answer in time.
    """
    entry = await _find(broker, run_id)
    return entry is not None and ScheduledRun.read(entry.value).status == "scheduled"


async def unschedule(broker: Broker, run_id: str) -> bool:
    """Keep a run from beginning; say whether it was still to begin.

    The record stays, as cancelled; the engine finds that when the message wakes it. The
    condition on the revision tells a run that has begun meanwhile: its record has been deleted,
    or is another.

    Raises:
        NotStored: the server did not answer in time.
    """
    entry = await _find(broker, run_id)
    if entry is None:
        return False
    run = ScheduledRun.read(entry.value).model_copy(update={"status": "cancelled"})
    body = compact(run.to_wire())
    try:
        await broker.kv_put(
            BUCKET_SCHEDULED, run_id, body, expect=entry.revision, deadline=deadline_in()
        )
    except Conflict:
        return False  # it has begun in the meantime
    return True


async def _find(broker: Broker, run_id: str) -> Entry | None:
    """Return the record of a scheduled run, None if there is none."""
    try:
        return await broker.kv_get(BUCKET_SCHEDULED, run_id, deadline=deadline_in())
    except Missing:
        return None  # an engine that knows no schedules


def _run_at(at: datetime, now_ns: int) -> str:
    """Write the time to begin at; one that cannot be meant is refused."""
    if at.tzinfo is None:
        raise UsageError(f"at must say its time zone, as datetime.now(UTC) does; not {at!r}")
    text = at.isoformat()
    ahead_ns = parse_rfc3339(text) - now_ns
    if not 0 < ahead_ns <= MAX_AHEAD_NS:
        raise UsageError(f"at must be in the future, at most 365 days, not {text}")
    return text
