"""The durable consumers on the server: created, checked for clashes, kept in shape.

A durable outlives its workers: it keeps the tasks that nobody serves now, and shares them out among
those that do. So a worker deletes none, and makes nothing of a live one smaller:

| on the server is | what is done |
|---|---|
| no durable of this name | it is created |
| one with our ``ack_wait`` and ``max_ack_pending``, or more | nothing, without a request |
| one with less of either | that is raised, the other stays |
| one with another filter, or another one that overlaps ours | ``UsageError``, by ``ensure`` |

``service`` ensures each as it starts, ``consume`` after a refusal, and ``directory`` restores them
twice a minute. What is there is listed once for all of them. Somebody may come between the list and
the creation; the server itself refuses filters that overlap.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import final

from trio_dagnats.errors import Conflict, UsageError
from trio_dagnats.logs import Log
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.transport.port import (
    Broker,
    ConsumerSpec,
    ConsumerState,
    Intake,
    IntakeSink,
)
from trio_dagnats.wire.names import TASK_QUEUES, consumer_clash, durable_name, filter_subject
from trio_dagnats.wire.text import NS
from trio_dagnats.worker.intake.served import Served
from trio_dagnats.worker.intake.source import Found

log = Log("trio_dagnats.worker")

MAX_ACK_PENDING = 100_000
"""With the server's default of 1000, a thousand paused tasks stop a task type (contract H37)."""
DURABLE_PREFIX = "workers-"
"""How the names of durables begin, those of Go workers included."""


@final
class Durable:
    """The durable that all workers of a task type (and group) share: the first kind of source.

    See :class:`.source.Source`.

    Args:
        broker: the connected server.
        served: whose durable it is.
    """

    stream = TASK_QUEUES

    def __init__(self, broker: Broker, served: Served) -> None:
        self._broker = broker
        self.served = served
        self._spec = ConsumerSpec(
            stream=self.stream,
            durable=durable_name(served.task_type, served.group),
            filter_subject=filter_subject(served.task_type, served.group),
            ack_wait_ns=round(served.ack_wait * NS),
            max_ack_pending=MAX_ACK_PENDING,
        )

    @property
    def consumer(self) -> str:
        """Its name on the server."""
        return self._spec.durable

    async def listed(self) -> Sequence[ConsumerState]:
        """Return all consumers of its stream."""
        return await self._broker.consumers(self.stream, deadline=deadline_in())

    async def ensure(self, found: Found) -> ConsumerState:
        """Create the durable, or take over the live one, after a look at what it may clash with.

        The ``ack_wait`` of a live durable is never shortened: other workers hold leases by it. The
        state that is returned has the one in force.

        Raises:
            UsageError: another consumer on the server stands in the way; the text names it.
        """
        deadline = deadline_in()
        live, served = found[self.stream], self.served
        await self._delete_orphans(live, deadline)
        durables = [(c.durable, c.filter_subject) for c in live if c.durable]
        clash = consumer_clash((served.task_type, served.group), durables)
        if clash is not None:
            raise UsageError(clash)
        try:
            state, _ = await self._shape(live, deadline)
        except Conflict as error:
            raise UsageError(
                f"the server refuses the consumer of task type {served.task_type!r}: {error}; "
                "another consumer's filter overlaps it"
            ) from error
        return state

    async def restore(self, found: Found) -> bool:
        """Put the durable back in shape if somebody has changed it; say whether it had to be.

        A Go worker that starts later resets ``max_ack_pending`` to 1000, and a worker that starts
        at the same time may not have seen our ``ack_wait``.
        """
        _, changed = await self._shape(found[self.stream], deadline_in())
        return changed

    def intake(self, sink: IntakeSink, *, fresh: float) -> AbstractAsyncContextManager[Intake]:
        """Open the subscription for its pulls."""
        return self._broker.intake(self.stream, self.consumer, sink, fresh=fresh)

    async def _shape(
        self, found: Sequence[ConsumerState], deadline: float
    ) -> tuple[ConsumerState, bool]:
        """Make it what it has to be; return it, and whether there was anything to do."""
        live = next((c for c in found if c.durable == self.consumer), None)
        if live is not None and _fits(live, self._spec):
            return live, False
        merged = _merged(live, self._spec)
        return await self._broker.ensure_consumer(merged, deadline=deadline), True

    async def _delete_orphans(self, found: Sequence[ConsumerState], deadline: float) -> None:
        """Delete nameless consumers that old workers left on our filter."""
        for consumer in found:
            if (
                not consumer.durable
                and consumer.filter_subject == self._spec.filter_subject
                and not consumer.name.startswith(DURABLE_PREFIX)
            ):
                log.warning("deleting the orphaned consumer %s", consumer.name)
                await self._broker.delete_consumer(self.stream, consumer.name, deadline=deadline)


def _fits(live: ConsumerState, spec: ConsumerSpec) -> bool:
    """Say whether a live durable has all that we need; it may have more for others' sake."""
    return live.ack_wait_ns >= spec.ack_wait_ns and live.max_ack_pending >= spec.max_ack_pending


def _merged(live: ConsumerState | None, spec: ConsumerSpec) -> ConsumerSpec:
    """Return what a durable has to be: the larger one of each bound, of the live one's and ours."""
    if live is None:
        return spec
    return ConsumerSpec(
        stream=spec.stream,
        durable=spec.durable,
        filter_subject=spec.filter_subject,
        ack_wait_ns=max(live.ack_wait_ns, spec.ack_wait_ns),
        max_ack_pending=max(live.max_ack_pending, spec.max_ack_pending),
    )
