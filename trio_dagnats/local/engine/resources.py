"""The streams, buckets and durables of an engine (contract 1.2, 1.3, 6.1).

All of a DagNats engine's, those included that this engine has no use for: workers, clients and
tools look for them, and a server must not look different in development.

=========================  =====================================================================
bucket                     written by
=========================  =====================================================================
workflow_defs              ``api``: registered workflows
workflow_runs              ``runs``: snapshots, each with the engine's book
scheduled_runs             clients; read and deleted by ``schedule``
event_waiters              ``correlator``
rate_limits                ``rates``
concurrency_tasks, _runs   ``slots``
singleton_locks            ``locks``
approval_tokens            ``sender``
idempotency_keys           ``api``
workers, worker_status,     workers
checkpoints
signals                    whoever sends a signal
the others                 nobody here
=========================  =====================================================================
"""

from functools import partial

import trio

from trio_dagnats.errors import asked_at_once
from trio_dagnats.transport.port import Broker, ConsumerSpec, StreamSpec
from trio_dagnats.wire import names
from trio_dagnats.wire.scheduled import BUCKET_SCHEDULED, SCHEDULE_DURABLE
from trio_dagnats.wire.text import NS

HISTORY_DURABLE = "orchestrator"
TIMER_DURABLE = "sleep-timer"
EVENT_DURABLE = "event-correlator"
DURABLES = {
    HISTORY_DURABLE: (names.WORKFLOW_HISTORY, "history.>"),
    TIMER_DURABLE: (names.SLEEP_TIMERS, "sleep.>"),
    EVENT_DURABLE: (names.EVENTS, "event.>"),
    SCHEDULE_DURABLE: (names.SLEEP_TIMERS, "scheduled.>"),
}
"""Stream and filter by name. All are read from the start on: the DagNats engine begins with the
second and the third when they are first needed, so that after a restart they sleep (contract H36),
and does not read the last one at all (H35).
"""
DAY_NS = 86_400 * NS
ACK_WAIT_NS = 5 * NS
"""After a crash, what was in hand comes back this soon; what is applied is not applied again.

Nobody renews these leases. A message that waits longer in its lane comes a second time, and is
found to be applied.
"""
MAX_ACK_PENDING = 100_000
"""A timer that waits counts as pending (contract H37)."""

STREAMS = (
    StreamSpec(
        name=names.WORKFLOW_HISTORY,
        subjects=("history.>",),
        duplicate_window_ns=5 * NS,
        max_age_ns=30 * DAY_NS,
    ),
    StreamSpec(
        name=names.TASK_QUEUES, subjects=("task.>",), retention="workqueue", allow_atomic=True
    ),
    StreamSpec(name=names.EVENTS, subjects=("event.>",), max_age_ns=14 * DAY_NS),
    StreamSpec(
        name=names.DEAD_LETTERS,
        subjects=("dead.>",),
        duplicate_window_ns=DAY_NS,
        max_age_ns=30 * DAY_NS,
    ),
    StreamSpec(name=names.SLEEP_TIMERS, subjects=("sleep.>", "scheduled.>")),
    StreamSpec(
        name=names.TELEMETRY,
        subjects=("telemetry.>",),
        duplicate_window_ns=5 * NS,
        max_age_ns=7 * DAY_NS,
    ),
    StreamSpec(
        name=names.STICKY_TASKS, subjects=("sticky.>",), storage="memory", max_age_ns=1800 * NS
    ),
    StreamSpec(name=names.TRIGGER_HISTORY, subjects=("trigger.fire.>",), max_age_ns=30 * DAY_NS),
)
"""As the DagNats engine makes them. Where no window is named it is two minutes: for the work queue
that is how long a task that is sent again is surely dropped (``sender.WINDOW_NS``). The
history's is 5 s only, so there the engine looks for ids itself.
"""
BUCKETS = {
    names.BUCKET_DEFS: 0,
    names.BUCKET_RUNS: 0,
    BUCKET_SCHEDULED: 0,
    names.BUCKET_WORKERS: 60 * NS,
    names.BUCKET_WORKER_STATUS: 120 * NS,
    "event_waiters": 0,
    "rate_limits": 0,
    "concurrency_tasks": 0,
    "approval_tokens": 168 * 3600 * NS,
    "debounce_state": 14 * DAY_NS,
    "idempotency_keys": DAY_NS,
    "http_idempotency": 3600 * NS,
    "sticky_bindings": 25 * 3600 * NS,
    "singleton_locks": 0,
    "trigger_types": 0,
    "services": 0,
    "triggers": 0,
    "trigger_state": 0,
    names.BUCKET_SIGNALS: 0,
    names.BUCKET_CHECKPOINTS: 0,
    "concurrency_runs": 0,
}
"""Name and time to live in nanoseconds, 0 for ever."""


async def ensure(broker: Broker, deadline: float) -> None:
    """Create what is missing, and bring streams up to date.

    All at once, because each is a request of its own to a server that has time. A stream that is
    there is updated to the specification; a bucket that is there is left as it is.

    Cancellation: what was asked for may be made all the same; asking again is safe.

    Raises:
        BrokerError: the server did not do it before ``deadline`` (trio time).
    """
    with asked_at_once():
        async with trio.open_nursery() as nursery:
            for spec in STREAMS:
                nursery.start_soon(partial(broker.ensure_stream, spec, deadline=deadline))
            for bucket, ttl_ns in BUCKETS.items():
                nursery.start_soon(
                    partial(broker.ensure_bucket, bucket, ttl_ns=ttl_ns, deadline=deadline)
                )


def durable(name: str) -> ConsumerSpec:
    """Return one of the engine's durables.

    ``name`` is a key of ``DURABLES``. The same specification is asked for at each start, so a
    durable that an older version has made is brought up to date.
    """
    stream, filter_subject = DURABLES[name]
    return ConsumerSpec(
        stream=stream,
        durable=name,
        filter_subject=filter_subject,
        ack_wait_ns=ACK_WAIT_NS,
        max_ack_pending=MAX_ACK_PENDING,
    )
