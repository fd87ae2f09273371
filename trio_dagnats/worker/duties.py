"""The timed duties of an attempt that lives for a while: run watch, lease, the run's deadline."""

from functools import partial
from typing import final

import trio

from trio_dagnats.wire.task import NO_TASK
from trio_dagnats.worker.aging import YOUNG
from trio_dagnats.worker.attempt import Attempt
from trio_dagnats.worker.engine_facts import RunFacts
from trio_dagnats.worker.lease import renew_at
from trio_dagnats.worker.reasons import CancelReason
from trio_dagnats.worker.receive import CANCELLED

NS = 1_000_000_000
STARTING_MOST = 1.0
"""Seconds that an attempt may wait for its ``step.started`` before its run is watched."""
FIRST_LOOK = 1.0
"""Age in seconds at which an attempt's run is looked at: for its deadline (design 8.5, H27), and
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
    hub.agenda.at(born + FIRST_LOOK, _Looks(attempt, born, apart=1.0).look)


def doubt_run(attempt: Attempt) -> None:
    """Look at once, and again and again, whether a run was cancelled.

    Its history says that it should be, from before its task was dispatched (``runwatch``).
    """
    now = trio.current_time()
    attempt.hub.agenda.at(now, _Looks(attempt, now, apart=0.125).look)


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
            attempt.hub.facts.look(attempt.run_id, self._seen, attempt.lease_until)

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
        attempt.hub.agenda.at(again, self.look)

    def _arm(self) -> None:
        """Arm the run's own deadline: the engine publishes nothing when it passes (H27)."""
        hub = self._attempt.hub
        left = (self._deadline_ns - hub.broker.time_ns()) / NS + DEADLINE_SLACK
        hub.agenda.at(trio.current_time() + left, partial(_pass_deadline, self._attempt))


async def _pass_deadline(attempt: Attempt) -> None:
    attempt.cancel(CancelReason.RUN_DEADLINE)
