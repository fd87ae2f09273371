"""The durable consumers on the server: created, checked for clashes, kept in shape."""

from collections.abc import Sequence

import trio

from trio_dagnats.errors import Conflict, UsageError
from trio_dagnats.logs import Log
from trio_dagnats.transport.port import Broker, ConsumerSpec, ConsumerState
from trio_dagnats.wire.names import TASK_QUEUES, consumer_clash, durable_name, filter_subject
from trio_dagnats.wire.text import NS
from trio_dagnats.worker.intake.served import Served

log = Log("trio_dagnats.worker")

MAX_ACK_PENDING = 100_000
"""With the server's default of 1000, a thousand paused tasks stop a task type (contract H37)."""
PATIENCE = 10.0
DURABLE_PREFIX = "workers-"


def spec_of(served: Served) -> ConsumerSpec:
    """Return the durable that all workers of a handler's task type share (contract 3.3)."""
    return ConsumerSpec(
        stream=TASK_QUEUES,
        durable=durable_name(served.task_type, served.group),
        filter_subject=filter_subject(served.task_type, served.group),
        ack_wait_ns=round(served.ack_wait * NS),
        max_ack_pending=MAX_ACK_PENDING,
    )


async def ensure(broker: Broker, served: Served, found: Sequence[ConsumerState]) -> ConsumerState:
    """Create the handler's durable, or take over the live one, after the checks of contract 3.4.

    The ``ack_wait`` of a live durable is never shortened (design 8.10): other workers hold leases
    by it. The state that is returned has the one in force.

    Args:
        broker: the connected server.
        served: whose durable it is.
        found: what the server has; to ask anew for each of a hundred would cost a hundred times
            a list of a hundred.

    Raises:
        UsageError: another consumer on the server stands in the way; the text names it.
    """
    deadline = trio.current_time() + PATIENCE
    spec = spec_of(served)
    await _delete_orphans(broker, spec, found, deadline)
    durables = [(c.durable, c.filter_subject) for c in found if c.durable]
    clash = consumer_clash((served.task_type, served.group), durables)
    if clash is not None:
        raise UsageError(clash)
    try:
        state, _ = await _shape(broker, spec, found, deadline)
    except Conflict as error:
        raise UsageError(
            f"the server refuses the consumer of task type {served.task_type!r}: {error}; another "
            "consumer's filter overlaps it"
        ) from error
    if state.max_ack_pending < spec.max_ack_pending:
        log.warning(
            "consumer %s: the server allows no more than %d unanswered messages of it "
            "(max_ack_pending): as many waiting tasks stop the task type; raise the limit of the "
            "server, the account or the stream to %d",
            spec.durable,
            state.max_ack_pending,
            spec.max_ack_pending,
        )
    return state


async def all_found(broker: Broker) -> Sequence[ConsumerState]:
    """Return the consumers that the server has.

    Raises:
        BrokerError: the server did not answer.
    """
    return await broker.consumers(TASK_QUEUES, deadline=trio.current_time() + PATIENCE)


async def restore(broker: Broker, served: Served, found: Sequence[ConsumerState]) -> bool:
    """Put the durable back in shape if somebody has changed it; say whether that was needed.

    A Go worker that starts later resets ``max_ack_pending`` to 1000 (design 8.10), and a worker
    that starts at the same time may not have seen our ``ack_wait``.

    Args:
        broker: the connected server.
        served: whose durable it is.
        found: what the server has.

    Raises:
        BrokerError: the server did not answer, or refused.
    """
    spec, deadline = spec_of(served), trio.current_time() + PATIENCE
    _, changed = await _shape(broker, spec, found, deadline)
    return changed


async def _shape(
    broker: Broker, spec: ConsumerSpec, found: Sequence[ConsumerState], deadline: float
) -> tuple[ConsumerState, bool]:
    """Make a durable what it has to be; return it, and whether there was anything to do."""
    live = next((c for c in found if c.durable == spec.durable), None)
    if live is not None and _fits(live, spec):
        return live, False
    state = await broker.ensure_consumer(_merged(live, spec), deadline=deadline)
    return state, live is None or _kept(state) != _kept(live)


def _kept(state: ConsumerState) -> tuple[int, int]:
    """Return what is kept in shape; the server may set it lower than it was asked to."""
    return state.ack_wait_ns, state.max_ack_pending


def _fits(live: ConsumerState, spec: ConsumerSpec) -> bool:
    return live.ack_wait_ns >= spec.ack_wait_ns and live.max_ack_pending >= spec.max_ack_pending


def _merged(live: ConsumerState | None, spec: ConsumerSpec) -> ConsumerSpec:
    if live is None:
        return spec
    return ConsumerSpec(
        stream=spec.stream,
        durable=spec.durable,
        filter_subject=spec.filter_subject,
        ack_wait_ns=max(live.ack_wait_ns, spec.ack_wait_ns),
        max_ack_pending=max(live.max_ack_pending, spec.max_ack_pending),
        max_batch=live.max_batch,
        max_expires_ns=live.max_expires_ns,
    )


async def _delete_orphans(
    broker: Broker, spec: ConsumerSpec, found: Sequence[ConsumerState], deadline: float
) -> None:
    """Delete nameless consumers that old workers left on our filter (contract 3.4, step 1)."""
    for consumer in found:
        if (
            not consumer.durable
            and consumer.filter_subject == spec.filter_subject
            and not consumer.name.startswith(DURABLE_PREFIX)
        ):
            log.warning("deleting the orphaned consumer %s", consumer.name)
            await broker.delete_consumer(TASK_QUEUES, consumer.name, deadline=deadline)
