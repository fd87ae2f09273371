"""What keeps an attempt that lives for a while: run watch, lease, the run's deadline.

| age | what begins | then |
|---|---|---|
| ``YOUNG`` s of the handler | the scope gets the lease's end as its deadline | moved by renewals |
| the same | the run watch | until its outcome is stored |
| a third of ``ack_wait`` | the renewal of the lease | again after a third, until it has left |
| ``FIRST_LOOK`` s | a look at the run: cancelled? a deadline? | at twice the age, and so on |

An attempt whose handler has not begun may be older: up to ``STARTING_MOST`` seconds, less where its
lease is short. None of this has a task of its own: ``service`` runs the two queues of times
(``timers``), and each call gets a task among the helpers when its time has come.

Who renews a lease while a handler waits, sleeps or runs in a thread: the call that is armed here.
While a handler blocks the event loop: nobody, since that call needs the loop, too; the watchdog
names the handler then. While the connection is lost: the renewal waits for it, and is sent again,
until the lease ends. Once the attempt is cancelled its end is moved no more.
"""

from functools import partial
from typing import final

import trio

from trio_dagnats.attempt.lease import lease_end, renew_at
from trio_dagnats.attempt.reasons import CancelReason
from trio_dagnats.errors import NotStored
from trio_dagnats.wire.task import NO_TASK
from trio_dagnats.wire.text import NS
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.attempts.timers import YOUNG
from trio_dagnats.worker.engine.facts import CANCELLED, RunFacts

STARTING_MOST = 1.0
"""Seconds that an attempt may wait for its ``step.started`` before its run is watched."""
FIRST_LOOK = 1.0
"""Age in seconds at which an attempt's run is looked at: for its deadline, and
whether it was cancelled. Then again at twice the age, and so on: that costs next to nothing, and no
engine can be so far behind that its decision is never noticed."""
FIRST_DOUBTS = 0.05
"""Seconds between the first looks at a run of which a cancellation is known that the engine has not
come to, or has ignored; they grow to an eighth of the time that has passed."""
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
    """Begin the timed duties of an attempt that has outlived its first moments.

    Called by the queue of the young. An attempt that has its outcome already, or is no task, gets
    the deadline only: nothing about its run matters any more.
    """
    now = trio.current_time()
    if _is_young(attempt, now):
        attempt.in_flight.young.add(attempt, now)
        return
    attempt.scope.deadline = attempt.lease_until
    if attempt.task is NO_TASK or attempt.outcome is not None:
        return
    shared, born = attempt.shared, attempt.delivery.received_at
    attempt.in_flight.watch.join(attempt)
    attempt.watched = True
    first = renew_at(attempt.delivery.sent_after, attempt.ack_wait)
    shared.timers.at(first, partial(_keep_lease, attempt))
    shared.timers.at(born + FIRST_LOOK, _Looks(attempt, born, apart=1.0).look)


def doubt_run(attempt: Attempt) -> None:
    """Look at once, and again and again, whether a run was cancelled.

    Its history says that it should be, from before its task was dispatched (``engine.run_watch``).
    """
    now = trio.current_time()
    attempt.shared.timers.at(now, _Looks(attempt, now, apart=0.125).look)


@final
class _Looks:
    """Looks at an attempt's run while the attempt lasts: its snapshot decides what becomes of both.

    Args:
        attempt: whose run it is.
        since: trio time.
        apart: the part of the time since then that is between two looks.
    """

    def __init__(self, attempt: Attempt, since: float, *, apart: float) -> None:
        self._attempt = attempt
        self._since = since
        self._apart = apart
        self._deadline_ns = 0

    async def look(self) -> None:
        """Ask for the run's snapshot."""
        attempt = self._attempt
        if not attempt.over:
            attempt.shared.facts.look(attempt.run_id, self._seen, attempt.lease_until)

    def _seen(self, run: RunFacts) -> None:
        attempt = self._attempt
        if run.status == CANCELLED:
            attempt.cancel(CancelReason.RUN_CANCELLED)
        if attempt.over or attempt.reason is not None:
            return
        if run.deadline_ns != self._deadline_ns:
            self._deadline_ns = run.deadline_ns
            self._arm()
        now = trio.current_time()
        again = now + max(FIRST_DOUBTS, (now - self._since) * self._apart)
        attempt.shared.timers.at(again, self.look)

    def _arm(self) -> None:
        """Arm the run's own deadline: the engine publishes nothing when it passes (H27)."""
        shared = self._attempt.shared
        left = (self._deadline_ns - shared.broker.time_ns()) / NS + DEADLINE_SLACK
        shared.timers.at(trio.current_time() + left, partial(_pass_deadline, self._attempt))


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
        attempt.shared.timers.at(again, partial(_keep_lease, attempt))
