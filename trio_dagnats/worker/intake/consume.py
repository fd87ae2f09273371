"""One pull loop per consumer: asks for what can run now, starts an attempt per delivery.

::

    run: promise (waits for slots) ──> pull ──> promise ──> ...
                                        │
    the transport calls:                ├─ delivered: a slot, or back it goes
                                        └─ returned: the pull's time is over, or it was refused

The loop does not wait for what it has asked for: that comes by callbacks, and the next ``promise``
is what holds it up. A lost connection is the transport's business (it asks again for the credits
that are left), a consumer that is gone is ours: it is made again after a pause.
"""

from collections.abc import Callable
from typing import final

import trio

from trio_dagnats.attempt.lease import fresh_within, lease_end
from trio_dagnats.errors import BrokerError
from trio_dagnats.logs import Log
from trio_dagnats.transport.port import ConsumerState, Delivery, PullEnd
from trio_dagnats.wire.text import NS
from trio_dagnats.worker.intake.slots import Quota, Slots
from trio_dagnats.worker.intake.source import Source, find

log = Log("trio_dagnats.worker")

EXPIRES = 30.0
"""Seconds of a pull that holds nothing back from others (nats.go takes the same)."""
EXPIRES_FOR_BACKLOG = 0.2
"""Seconds of a pull for what is there: what another worker took meanwhile keeps a slot so long."""
PAUSES_AFTER_REFUSAL = (0.25, 1.0, 2.0, 5.0)
"""Seconds before the next pull after the first, second ... refusal in a row; the last one stays."""

StartAttempt = Callable[["Consumer", Delivery], None]
"""Starts the attempt of a delivery; called by the transport, must not wait."""


@final
class Consumer:
    """One consumer of a handler: the sink of its deliveries and the loop that asks for them.

    Args:
        source: where the tasks come from.
        state: the consumer as the server has it.
        slots: the worker's ledger.
        quota: that of the handler; its other consumers have the same.
        start: starts an attempt.

    Attributes:
        source: where the tasks come from.
        share: its part of the slots.
        ack_wait: seconds of the lease on a task, as the server has it.
        lease: seconds of it for which this worker may speak.
    """

    def __init__(
        self,
        source: Source,
        state: ConsumerState,
        slots: Slots,
        quota: Quota,
        start: StartAttempt,
    ) -> None:
        self.source = source
        self._know(state)
        self.share = slots.share(quota)
        self.share.backlog = state.pending
        self._slots = slots
        self._start = start
        self._refusals = 0

    def delivered(self, delivery: Delivery) -> None:
        """Start an attempt; without a slot for it the message goes straight back.

        Called by the transport for each message, from its own task: must not wait. The lease counts
        from ``sent_after`` and not from the arrival, for the server counts from its sending.

        A message whose lease may be over when it arrives was held up on its way. Another worker
        has it by now, or gets it soon: nothing is said about it.
        """
        self._refusals = 0
        has_slot = self._slots.arrived(self.share)
        if delivery.received_at - delivery.sent_after >= self.lease:
            log.warning(
                "a task of %s came too late: left to its lease", self.source.served.task_type
            )
            delivery.forget()
            if has_slot:
                self._slots.ended(self.share)
        elif has_slot:
            self._start(self, delivery)
        else:
            delivery.nak(not_after=delivery.sent_after + self.lease)

    def _know(self, state: ConsumerState) -> None:
        self.ack_wait = state.ack_wait_ns / NS
        self.lease = lease_end(0.0, self.ack_wait)

    def returned(self, count: int, why: PullEnd) -> None:
        """Give promises back; the loop pauses if the server refused.

        Called by the transport. That a pull has expired is no refusal, and the ordinary end of one
        on an empty queue. The loop is woken by the promises, finds the refusal and pauses then.
        """
        if why is not PullEnd.EXPIRED:
            self._refusals += 1
        self._slots.returned(self.share, count)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Pull until cancelled; what is on its way then is handed back (design 8.8)."""
        fresh = fresh_within(self.ack_wait)
        async with self.source.intake(self, fresh=fresh) as intake:
            self.share.left_behind = intake.left_behind
            task_status.started()
            while True:
                batch = await self._slots.promise(self.share)
                if self._refusals:
                    await self._after_refusal(batch)
                    continue
                for_backlog = self.share.for_backlog
                intake.pull(
                    batch, EXPIRES_FOR_BACKLOG if for_backlog else EXPIRES, once=for_backlog
                )

    async def _after_refusal(self, batch: int) -> None:
        """Wait a little, then make sure that the consumer exists.

        Its promises go back first, so that other consumers can have the slots meanwhile. The lease
        is read anew: whoever has made the durable again may have made it with another ``ack_wait``.
        """
        refusals, self._refusals = self._refusals, 0
        self._slots.returned(self.share, batch)
        await trio.sleep(PAUSES_AFTER_REFUSAL[min(refusals, len(PAUSES_AFTER_REFUSAL)) - 1])
        try:
            state = await self.source.ensure(await find([self.source]))
        except BrokerError as error:
            self._refusals = refusals + 1
            log.warning("consumer %s: %s", self.source.consumer, error)
        else:
            self._know(state)
