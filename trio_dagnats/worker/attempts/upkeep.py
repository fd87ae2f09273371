"""The timed duties of an attempt that lives for a while: run watch, lease, the run's deadline."""

from functools import partial

import trio

from trio_dagnats.attempt.lease import renew_at
from trio_dagnats.attempt.reasons import CancelReason
from trio_dagnats.wire.task import NO_TASK
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.attempts.timers import YOUNG

NS = 1_000_000_000
STARTING_MOST = 1.0
"""Seconds that an attempt may wait for its ``step.started`` before its run is watched."""
DEADLINE_READ = 1.0
"""Age in seconds at which an attempt's run is read once for its deadline (design 8.5, H27)."""
DEADLINE_SLACK = 1.0
"""Seconds after a run's deadline before an event is sent: the engine's clock must agree."""


def _is_young(attempt: Attempt, now: float) -> bool:
    """Say whether the timed duties can wait: it is the handler that grows old.

    Before it runs a busy server can keep every attempt waiting, and watching them all would keep
    it busier still; but a lease must be renewed in time.
    """
    born = attempt.delivery.received_at
    renewal = renew_at(attempt.delivery.sent_after, attempt.ack_wait)
    begin = min(born + STARTING_MOST, renewal - YOUNG)
    return not attempt.started_at and now < begin


def begin_duties(attempt: Attempt) -> None:
    """Begin the timed duties of an attempt that has outlived its first moments."""
    now = trio.current_time()
    if _is_young(attempt, now):
        attempt.hub.young.add(attempt, now)
        return
    attempt.scope.deadline = attempt.lease_until
    if attempt.task is NO_TASK or attempt.outcome is not None:
        return
    hub, born = attempt.hub, attempt.delivery.received_at
    hub.watch.join(attempt)
    hub.agenda.at(renew_at(attempt.delivery.sent_after, attempt.ack_wait), attempt.keep_lease)
    hub.agenda.at(born + DEADLINE_READ, partial(_read_deadline, attempt))


async def _read_deadline(attempt: Attempt) -> None:
    """Arm the run's own deadline: the engine publishes nothing when it passes (contract H27)."""
    if attempt.over:
        return
    deadline_ns = (await attempt.hub.facts.run(attempt.run_id)).deadline_ns
    if deadline_ns:
        left = (deadline_ns - attempt.hub.broker.time_ns()) / NS + DEADLINE_SLACK
        attempt.hub.agenda.at(trio.current_time() + left, partial(_pass_deadline, attempt))


async def _pass_deadline(attempt: Attempt) -> None:
    attempt.cancel(CancelReason.RUN_DEADLINE)
