"""What keeps an attempt that lives for a while: run watch, lease, the run's deadline."""

from functools import partial

import trio

from trio_dagnats.attempt.lease import lease_end, renew_at
from trio_dagnats.attempt.reasons import CancelReason
from trio_dagnats.errors import NotStored
from trio_dagnats.wire.task import NO_TASK
from trio_dagnats.wire.text import NS
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.attempts.timers import YOUNG

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
        attempt.in_flight.young.add(attempt, now)
        return
    attempt.scope.deadline = attempt.lease_until
    if attempt.task is NO_TASK or attempt.outcome is not None:
        return
    shared, born = attempt.shared, attempt.delivery.received_at
    shared.watch.join(attempt)
    attempt.watched = True
    first = renew_at(attempt.delivery.sent_after, attempt.ack_wait)
    shared.agenda.at(first, partial(_keep_lease, attempt))
    shared.agenda.at(born + DEADLINE_READ, partial(_read_deadline, attempt))


async def _read_deadline(attempt: Attempt) -> None:
    """Arm the run's own deadline: the engine publishes nothing when it passes (contract H27)."""
    if attempt.over:
        return
    deadline_ns = (await attempt.shared.facts.run(attempt.run_id)).deadline_ns
    if deadline_ns:
        left = (deadline_ns - attempt.shared.broker.time_ns()) / NS + DEADLINE_SLACK
        attempt.shared.agenda.at(trio.current_time() + left, partial(_pass_deadline, attempt))


async def _pass_deadline(attempt: Attempt) -> None:
    attempt.cancel(CancelReason.RUN_DEADLINE)


async def renew_lease(attempt: Attempt) -> bool:
    """Renew the lease and move the end of the scope; False if it was not confirmed in time.

    Tried until the lease ends, because the connection may come back before.
    """
    try:
        sent_at = await attempt.delivery.renew(deadline=attempt.lease_until)
    except NotStored:
        return False
    if not attempt.scope.cancel_called:
        attempt.lease_until = lease_end(sent_at, attempt.ack_wait)
        attempt.scope.deadline = attempt.lease_until
    return True


async def heartbeat(attempt: Attempt) -> None:
    """Renew the lease at the handler's wish.

    Raises:
        NotStored: it was not confirmed while the lease lasted.
    """
    if not await renew_lease(attempt):
        raise NotStored(f"the lease of {attempt.label} was not renewed in time")


async def _keep_lease(attempt: Attempt) -> None:
    """Renew the lease once and arm the next renewal, while the attempt lasts."""
    if not attempt.over and await renew_lease(attempt) and not attempt.over:
        again = renew_at(trio.current_time(), attempt.ack_wait)
        attempt.shared.agenda.at(again, partial(_keep_lease, attempt))
