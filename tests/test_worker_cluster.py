"""Workers on several servers that are one: what these answer is not what a single one answers."""

from pathlib import Path

import trio
from fleet_bench import cluster, fleet_on, soon

from trio_dagnats import TaskContext, Worker
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.events import parse_event
from trio_dagnats.wire.names import TASK_QUEUES, WORKFLOW_HISTORY
from trio_dagnats.wire.text import compact

ITEMS = 60
SHORT = 30.0
"""A lease that does not outlive a dead connection: all outcomes are sent on a condition."""


async def test_the_items_of_one_run_on_three_servers_run_once_each(tmp_path: Path) -> None:
    """Their events share a subject, and the servers refuse one while another is in flight."""
    begun: list[str] = []

    def worker(url: str) -> Worker:
        made = Worker(url, concurrency=ITEMS)

        @made.handle("t", ack_wait=SHORT)
        async def handler(ctx: TaskContext) -> None:
            begun.append(ctx.step_id)

        return made

    async with cluster(tmp_path) as servers, fleet_on(servers[0]) as fleet:
        for stream in (TASK_QUEUES, WORKFLOW_HISTORY):
            await fleet.replicate(stream)
        async with worker(servers[0].url), worker(servers[2].url):
            async with trio.open_nursery() as nursery:
                for number in range(ITEMS):
                    body = compact({"run_id": "r", "step_id": f"m.map.{number}"})
                    nursery.start_soon(put, fleet.admin, body)
            await fleet.queued(0)
        records = await fleet.admin.records(WORKFLOW_HISTORY, "history.r", deadline=soon())

    events = [parse_event(record.body) for record in records]
    completed = [event.step_id for event in events if event.type == "step.completed"]
    assert len(begun) == len(set(begun)) == ITEMS
    assert sorted(completed) == sorted(begun)


async def put(admin: Broker, body: bytes) -> None:
    await admin.store("task.t.r", body, deadline=soon())
