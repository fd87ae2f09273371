"""Workers of one server that somebody else changes under them."""

import json
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from trio_dagnats import TaskContext, Worker
from trio_dagnats.errors import BrokerError
from trio_dagnats.local import Server
from trio_dagnats.local.engine import resources
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.events import EventType, parse_event
from trio_dagnats.wire.names import TASK_QUEUES, WORKFLOW_HISTORY, task_subject
from trio_dagnats.wire.text import NS, compact

PATIENCE = 30.0
OUTCOMES = {EventType.STEP_COMPLETED, EventType.STEP_FAILED}


def soon() -> float:
    return trio.current_time() + PATIENCE


@dataclass
class Fleet:
    """A server with the streams of an engine, and what its workers have done.

    Attributes:
        begun: executions by run.
        may_end: the first executions of the runs end when it is set.
        may_end_again: the others end when it is set.
    """

    url: str
    admin: Broker
    begun: Counter[str] = field(default_factory=Counter)
    may_end: trio.Event = field(default_factory=trio.Event)
    may_end_again: trio.Event = field(default_factory=trio.Event)
    _lot: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    def worker(self, url: str = "", *, ack_wait: float = 300.0, concurrency: int = 64) -> Worker:
        """Make a worker whose handlers wait for ``may_end``."""
        worker = Worker(url or self.url, concurrency=concurrency, grace=10.0)

        @worker.handle("t", ack_wait=ack_wait)
        async def handler(ctx: TaskContext) -> int:
            self.begun[ctx.run_id] += 1
            self._lot.unpark_all()
            await (self.may_end if self.begun[ctx.run_id] == 1 else self.may_end_again).wait()
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

    async def until_stored(self, *runs: str) -> None:
        """Wait until each of these runs has an outcome."""
        with trio.fail_after(PATIENCE):
            while not set(runs) <= set(await self.outcomes()):
                await trio.lowlevel.checkpoint()

    async def until_made(self) -> None:
        """Wait until there is a durable."""
        with trio.fail_after(PATIENCE):
            while not await self.admin.consumers(TASK_QUEUES, deadline=soon()):
                await trio.lowlevel.checkpoint()

    async def until_lease(self, seconds: float) -> None:
        """Wait until the durable's lease is so long."""
        with trio.fail_after(2 * PATIENCE):
            while True:
                (durable,) = await self.admin.consumers(TASK_QUEUES, deadline=soon())
                if durable.ack_wait_ns == round(seconds * NS):
                    return

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

    async def replicate(self, stream: str) -> None:
        """Have a stream on all three servers of a cluster, and wait until they have it."""
        config = (await self.api(f"STREAM.INFO.{stream}"))["config"]
        await self.api(f"STREAM.UPDATE.{stream}", **{**config, "num_replicas": 3})
        with trio.fail_after(PATIENCE):
            while True:
                state = (await self.api(f"STREAM.INFO.{stream}"))["cluster"]
                others = state.get("replicas")
                current = [one["current"] for one in others] if isinstance(others, list) else []
                if state.get("leader") and current == [True, True]:
                    return

    async def forget_ids_soon(self) -> None:
        """Let the history forget the ids of its messages within a tenth of a second."""
        config = (await self.api(f"STREAM.INFO.{WORKFLOW_HISTORY}"))["config"]
        update = {**config, "duplicate_window": NS // 10}
        await self.api(f"STREAM.UPDATE.{WORKFLOW_HISTORY}", **update)

    async def until_ids_are_forgotten(self) -> None:
        """Wait until the history takes the id of a message once more."""
        other = b'{"type":"workflow.started","run_id":"other"}'
        store = partial(self.admin.store, "history.other", other, msg_id=f"id{self.begun.total()}")
        await store(deadline=soon())
        while (await store(deadline=soon())).duplicate:
            await trio.lowlevel.checkpoint()

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


@asynccontextmanager
async def cluster(place: Path) -> AsyncIterator[list[Server]]:
    """Start three servers that are one, with their files in a directory of the caller's."""
    with ExitStack() as sockets:
        found = [sockets.enter_context(socket.socket()) for _ in range(3)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in found]
    routes = ", ".join(f"nats://127.0.0.1:{port}" for port in ports)
    async with AsyncExitStack() as stack:
        servers = []
        for port in ports:
            config = place / f"{port}.conf"
            config.write_text(
                f"server_name: n{port}\n"
                f"cluster {{ name: c, listen: 127.0.0.1:{port}, routes: [{routes}] }}\n"
            )
            servers.append(await stack.enter_async_context(Server(config=config)))
        async with open_broker(servers[0].url) as admin:
            with trio.fail_after(PATIENCE):
                while not await has_leader(admin):
                    await trio.lowlevel.checkpoint()
        yield servers


async def has_leader(admin: Broker) -> bool:
    """Say whether the servers of a cluster have agreed on who leads them."""
    try:
        answer = await admin.request("$JS.API.INFO", b"", timeout=1.0)
    except BrokerError:
        return False
    return b'"error"' not in answer.body
