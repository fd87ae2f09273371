"""Workers of one server that somebody else changes under them."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from trio_dagnats import TaskContext, Worker
from trio_dagnats.local import Server
from trio_dagnats.local.engine import resources
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.events import EventType, parse_event
from trio_dagnats.wire.names import WORKFLOW_HISTORY, task_subject
from trio_dagnats.wire.text import compact

PATIENCE = 30.0
OUTCOMES = {EventType.STEP_COMPLETED, EventType.STEP_FAILED}


def soon() -> float:
    return trio.current_time() + PATIENCE


@dataclass
class Fleet:
    """A server with the streams of an engine, and what its workers have done.

    Attributes:
        begun: executions by run.
        may_end: the handlers end when it is set.
    """

    url: str
    admin: Broker
    begun: Counter[str] = field(default_factory=Counter)
    may_end: trio.Event = field(default_factory=trio.Event)
    _lot: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    def worker(self, *, ack_wait: float = 300.0, concurrency: int = 64) -> Worker:
        """Make a worker whose handlers wait for ``may_end``."""
        worker = Worker(self.url, concurrency=concurrency, grace=1.0)

        @worker.handle("t", ack_wait=ack_wait)
        async def handler(ctx: TaskContext) -> int:
            self.begun[ctx.run_id] += 1
            self._lot.unpark_all()
            await self.may_end.wait()
            return 1

        return worker

    async def put(self, *runs: str) -> None:
        """Store a task of each run, as an engine does."""
        for run in runs:
            body = compact({"run_id": run, "step_id": "s", "task_id": f"{run}.s"})
            await self.admin.store(task_subject("t", run), body, deadline=soon())

    async def until_begun(self, count: int) -> None:
        """Wait until so many executions have begun."""
        with trio.fail_after(PATIENCE):
            while self.begun.total() < count:
                await self._lot.park()

    async def outcomes(self) -> Counter[str]:
        """Count the outcomes that are stored, by run; what was heard may have been refused."""
        found = await self.admin.records(WORKFLOW_HISTORY, "history.>", deadline=soon())
        events = [parse_event(record.body) for record in found]
        return Counter(event.run_id for event in events if event.type in OUTCOMES)

    async def queued(self, count: int) -> None:
        """Wait until so many tasks are left in the queue: the server tells nobody when."""
        with trio.fail_after(PATIENCE):
            while (await self.api("STREAM.INFO.TASK_QUEUES"))["state"]["messages"] != count:
                await trio.lowlevel.checkpoint()

    async def api(self, operation: str, **request: object) -> dict[str, dict[str, object]]:
        """Ask the server's JetStream API, as an operator does."""
        body = json.dumps(request).encode() if request else b""
        answer = await self.admin.request(f"$JS.API.{operation}", body, timeout=PATIENCE)
        found: dict[str, dict[str, object]] = json.loads(answer.body)
        assert "error" not in found, found
        return found

    async def make_again(self, stream: str) -> None:
        """Delete a stream, and let the engine make it again."""
        await self.api(f"STREAM.DELETE.{stream}")
        await resources.ensure(self.admin, soon())


@asynccontextmanager
async def fleet_on(server: Server) -> AsyncIterator[Fleet]:
    """Prepare a server as an engine does."""
    async with open_broker(server.url) as admin:
        await resources.ensure(admin, soon())
        yield Fleet(server.url, admin)
