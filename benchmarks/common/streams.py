"""Streams, tasks and histories, as an engine would have them."""

from collections import Counter
from collections.abc import Iterable

import trio

from trio_dagnats.local.engine import resources
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import Broker, Record
from trio_dagnats.wire.events import HistoryEvent, parse_event
from trio_dagnats.wire.names import TASK_QUEUES, WORKFLOW_HISTORY, task_subject
from trio_dagnats.wire.text import compact

AT_ONCE = 512
OUTCOMES = frozenset({"step.completed", "step.failed", "step.continue"})
SOON = 60.0
"""Seconds within which a server on this machine answers, whatever else the machine does."""


async def prepare(broker: Broker, *buckets: str) -> None:
    """Make the streams that a worker needs, and these buckets of an engine."""
    deadline = trio.current_time() + SOON
    for spec in resources.STREAMS:
        if spec.name in {TASK_QUEUES, WORKFLOW_HISTORY}:
            await broker.ensure_stream(spec, deadline=deadline)
    for bucket in buckets:
        await broker.ensure_bucket(bucket, ttl_ns=resources.BUCKETS[bucket], deadline=deadline)


async def put_task(broker: Broker, task_type: str, run_id: str, given: object = 1) -> None:
    """Dispatch a task of a run of its own, as the engine does it."""
    body = {"task_id": f"{run_id}.s", "run_id": run_id, "step_id": "s", "input": given}
    deadline = trio.current_time() + SOON
    await broker.store(task_subject(task_type, run_id), compact(body), deadline=deadline)


async def preload(
    broker: Broker, task_type: str, run_ids: Iterable[str], given: object = 1
) -> None:
    """Put a task of each run into the queue."""
    limit = trio.CapacityLimiter(AT_ONCE)

    async def put(run_id: str) -> None:
        async with limit:
            await put_task(broker, task_type, run_id, given)

    async with trio.open_nursery() as nursery:
        for run_id in run_ids:
            nursery.start_soon(put, run_id)


async def records(broker: Broker) -> list[Record]:
    """Read the history of all runs."""
    deadline = trio.current_time() + SOON
    return await broker.records(WORKFLOW_HISTORY, "history.>", deadline=deadline)


async def events(broker: Broker) -> list[HistoryEvent]:
    """Read the history of all runs, event by event."""
    return [parse_event(record.body) for record in await records(broker)]


async def count(broker: Broker) -> Counter[tuple[str, str]]:
    """Count the events of every run by their type."""
    return Counter((event.run_id, event.type) for event in await events(broker))


async def left_in_queue(broker: Broker) -> int:
    """Return how many task messages are not settled."""
    found = await broker.consumers(TASK_QUEUES, deadline=trio.current_time() + SOON)
    return sum(state.pending + state.ack_pending for state in found)


async def until_empty(url: str, seconds: float) -> int:
    """Wait until no task is left, at most for so long; return how many are left all the same."""
    async with open_broker(url) as broker:
        with trio.move_on_after(seconds):
            while await left_in_queue(broker):
                await trio.sleep(0.1)
        return await left_in_queue(broker)


def outcomes(found: Iterable[HistoryEvent]) -> Counter[str]:
    """Count the outcomes of each run."""
    return Counter(event.run_id for event in found if event.type in OUTCOMES)
