"""One pull loop per consumer: asks for what can run now, starts an attempt per delivery."""

from collections.abc import Callable
from sys import maxsize
from typing import final

import trio

from trio_dagnats.attempt.lease import fresh_within, lease_end
from trio_dagnats.errors import BrokerError
from trio_dagnats.logs import Log
from trio_dagnats.transport.port import Broker, ConsumerState, Delivery, PullEnd
from trio_dagnats.wire.names import TASK_QUEUES
from trio_dagnats.wire.text import NS
from trio_dagnats.worker.intake import durables
from trio_dagnats.worker.intake.served import Served
from trio_dagnats.worker.intake.slots import Share, Slots

log = Log("trio_dagnats.worker")

EXPIRES = 30.0
"""Seconds of a pull that holds nothing back from others (nats.go takes the same)."""
EXPIRES_OF_TURN = 0.2
"""Seconds of a pull for what is there: what another worker took meanwhile keeps a slot so long."""
PAUSES_AFTER_REFUSAL = (0.25, 1.0, 2.0, 5.0)

StartAttempt = Callable[["Consumer", Delivery], None]
"""Starts the attempt of a delivery; called by the transport, must not wait."""


@final
class Consumer:
    """The intake of one durable: the sink of its deliveries and the loop that asks for them.

    Args:
        broker: the connected server.
        served: the task type.
        state: the durable as the server has it.
        slots: the worker's ledger.
        start: starts an attempt.

    Attributes:
        share: its part of the slots.
        ack_wait: seconds of the lease on a task, as the durable has it.
        lease: seconds of it for which this worker may speak.
    """

    def __init__(
        self,
        broker: Broker,
        served: Served,
        state: ConsumerState,
        slots: Slots,
        start: StartAttempt,
    ) -> None:
        self.served = served
        self.share: Share = slots.share(served.concurrency)
        self._know(state)
        self.share.backlog = state.pending
        self._broker = broker
        self._durable = state.durable or state.name
        self._slots = slots
        self._start = start
        self._refusals = 0

    def delivered(self, delivery: Delivery) -> None:
        """Start an attempt; without a slot for it the message goes straight back.

        A message whose lease may be over when it arrives was held up on its way. Another worker
        has it by now, or gets it soon: nothing is said about it.
        """
        self._refusals = 0
        has_slot = self._slots.arrived(self.share)
        if delivery.received_at - delivery.sent_after >= self.lease:
            log.warning("a task of %s came too late: left to its lease", self.served.task_type)
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
        self.share.largest = state.max_batch or maxsize
        self._longest = state.max_expires_ns / NS or EXPIRES

    def returned(self, count: int, why: PullEnd) -> None:
        """Give promises back; the loop pauses if the server refused."""
        if why is not PullEnd.EXPIRED:
            self._refusals += 1
        self._slots.returned(self.share, count)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Pull until cancelled; what is on its way then is handed back (design 8.8)."""
        fresh = fresh_within(self.ack_wait)
        async with self._broker.intake(TASK_QUEUES, self._durable, self, fresh=fresh) as intake:
            self.share.left_behind = intake.left_behind
            task_status.started()
            while True:
                batch = await self._slots.promise(self.share)
                if self._refusals:
                    await self._after_refusal(batch)
                    continue
                in_turn = self.share.in_turn
                expires = min(EXPIRES_OF_TURN if in_turn else EXPIRES, self._longest)
                intake.pull(batch, expires, once=in_turn)

    async def _after_refusal(self, batch: int) -> None:
        """Wait a little, then make sure that the consumer exists."""
        refusals, self._refusals = self._refusals, 0
        self._slots.returned(self.share, batch)
        await trio.sleep(PAUSES_AFTER_REFUSAL[min(refusals, len(PAUSES_AFTER_REFUSAL)) - 1])
        try:
            found = await durables.all_found(self._broker)
            state = await durables.ensure(self._broker, self.served, found)
        except BrokerError as error:
            self._refusals = refusals + 1
            log.warning("consumer %s: %s", self._durable, error)
        else:
            self._know(state)
