"""Network partitions at random moments: is a task ever worked on by two workers at once?

Two worker processes, each behind a proxy of its own, share a queue whose lease is 3 s. A partition
holds back the bytes of one direction or of both, for up to three leases; then the bytes arrive
after all, or they are dropped and the connection is cut. Some cut it at once and let nobody
connect. A third of the handlers hands its task back twice, so that a late NAK would be seen: it
gives a task that is worked on to somebody else. Every handler tells its start and its end by the
clock of the machine: two executions of one attempt must never overlap, and no attempt may have two
outcomes.

Meanwhile other workers, whose network is whole, run handlers that take 20 leases: none of them may
be delivered a second time.

Run it:  python -m benchmarks.partitions
"""

import logging
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import trio

from benchmarks.common import (
    Report,
    Said,
    arguments,
    employ,
    events,
    outcomes,
    prepare,
    put_task,
    serve_until_killed,
    tell,
    until_empty,
)
from trio_dagnats import Retryable, TaskContext, Worker
from trio_dagnats.local import Server
from trio_dagnats.transport import open_broker
from trio_dagnats.wire.names import BUCKET_CHECKPOINTS, BUCKET_WORKERS

ACK_WAIT = 3.0
CONCURRENCY = 32
HEALTHY_LEASES = 20
PER_SECOND = 2.5
QUIET = (0.1, 2.0)
"""Seconds between two partitions of a proxy."""
LASTS = 3 * ACK_WAIT
"""Seconds that a partition lasts, and a handler takes, at most."""
PATIENCE = 120.0
AGAIN = "-again"
"""Ends the names of runs whose handlers hand their tasks back."""
CHUNK = 65536
UP, DOWN = "to the server", "to the worker"
SIDES = ((UP,), (DOWN,), (UP, DOWN))


async def serve(url: str) -> None:
    """Serve until killed."""
    worker = Worker(url, concurrency=CONCURRENCY)

    @worker.handle("work", ack_wait=ACK_WAIT)
    async def work(ctx: TaskContext) -> None:
        tell("start", run=ctx.run_id, deliveries=ctx.deliveries)
        try:
            await trio.sleep(float(ctx.input))
            if ctx.run_id.endswith(AGAIN) and ctx.deliveries <= 2:
                raise Retryable("again", delay=0.1)
        finally:
            tell("end", run=ctx.run_id, why=str(ctx.cancel_reason))

    await serve_until_killed(worker)


class Proxy:
    """Passes bytes between a worker and its server, but for the partitions.

    Args:
        server_port: where the server listens.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._held: dict[str, trio.Event] = {}
        self._cut = trio.CancelScope()
        self.url = ""

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take connections until cancelled."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        self.url = f"nats://127.0.0.1:{port}"
        task_status.started()
        await trio.serve_listeners(self._serve, [listener])

    async def partition(self, sides: tuple[str, ...], seconds: float, *, drop: bool) -> None:
        """Hold back the bytes of these directions; then let them pass, or drop them."""
        for side in sides:
            self._held[side] = trio.Event()
        await trio.sleep(seconds)
        if drop:
            self.cut()
        for side in sides:
            self._held.pop(side).set()

    def cut(self) -> None:
        """Close all connections, with all that is on its way."""
        self._cut.cancel()
        self._cut = trio.CancelScope()

    async def _serve(self, worker: trio.SocketStream) -> None:
        with self._cut:
            server = await trio.open_tcp_stream("127.0.0.1", self._server_port)
            async with worker, server:
                try:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._pass_on, worker, server, UP)
                        nursery.start_soon(self._pass_on, server, worker, DOWN)
                except* (trio.BrokenResourceError, trio.ClosedResourceError):
                    pass

    async def _pass_on(self, from_: trio.SocketStream, to: trio.SocketStream, side: str) -> None:
        while chunk := await from_.receive_some(CHUNK):
            while side in self._held:
                await self._held[side].wait()
            await to.send_all(chunk)
        await to.send_eof()


@dataclass
class Result:
    """What was found.

    Attributes:
        partitions: how many there were.
        fed: how many tasks.
        overlaps: executions that began while another one of the same attempt was alive.
        executions: handlers that were started.
        lost_leases: handlers that were cancelled because their lease ended.
        outcomes: the outcomes of each run.
        left: messages that are not settled.
        early: seconds between the end of a cancelled execution and the next one, the least.
    """

    partitions: int = 0
    fed: int = 0
    overlaps: int = 0
    executions: int = 0
    lost_leases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    left: int = 0
    early: float = float("inf")

    def add(self, other: "Result") -> None:
        """Add what another lane has found."""
        self.early = min(self.early, other.early)
        for name in ("partitions", "fed", "overlaps", "executions", "lost_leases", "left"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.outcomes.update(other.outcomes)

    @property
    def lost(self) -> int:
        """Tasks that have no outcome."""
        return self.fed - len(self.outcomes)

    @property
    def twice(self) -> int:
        """Outcomes beyond the first one of an attempt."""
        return self.outcomes.total() - len(self.outcomes)


def judge(said: list[Said], result: Result) -> None:
    """Look for executions of one attempt that were alive at the same time."""
    alive, ended_at = defaultdict[str, int](int), dict[str, float]()
    for event in sorted(said, key=lambda event: event.at):
        if event.what == "start":
            result.executions += 1
            result.overlaps += alive[event.run] > 0
            alive[event.run] += 1
            if event.run in ended_at:
                result.early = min(result.early, event.at - ended_at[event.run])
        elif event.what == "end":
            alive[event.run] -= 1
            ended_at[event.run] = event.at
            result.lost_leases += "LEASE" in str(event.more["why"])


async def trouble(proxy: Proxy, times: int, most: float, rng: random.Random) -> None:
    """Part a worker from its server, again and again."""
    for _ in range(times):
        await trio.sleep(rng.uniform(*QUIET))
        if rng.random() < 0.2:  # else the connection lives on in the beginning
            proxy.cut()
        await proxy.partition(rng.choice(SIDES), rng.uniform(0.2, most), drop=rng.random() < 0.5)


async def feed(url: str, rng: random.Random, name: str, most: float, result: Result) -> None:
    """Put tasks into the queue at random moments, until cancelled."""
    async with open_broker(url) as broker:
        for number in count():
            await trio.sleep(rng.expovariate(PER_SECOND))
            with trio.CancelScope(shield=True):
                seconds = round(rng.uniform(0.1, most), 3)
                again = AGAIN if rng.random() < 1 / 3 else ""
                await put_task(broker, "work", f"{name}-{number}{again}", seconds)
            result.fed += 1


async def lane(number: int, times: int, most: float, seed: int, result: Result) -> None:
    """Play so many partitions on a server of its own, with two workers."""
    rng, found, said = random.Random(seed + number), Result(partitions=times), list[Said]()
    async with Server() as server, trio.open_nursery() as nursery:
        proxies = [Proxy(server.port), Proxy(server.port)]
        async with open_broker(server.url) as broker:
            await prepare(broker, BUCKET_CHECKPOINTS, BUCKET_WORKERS)
        for proxy in proxies:
            await nursery.start(proxy.run)
            await nursery.start(partial(employ, "partitions", "--serve", proxy.url, said=said))
        async with trio.open_nursery() as feeding:
            feeding.start_soon(feed, server.url, rng, f"lane{number}", most, found)
            async with trio.open_nursery() as troubles:
                for place, proxy in enumerate(proxies):
                    troubles.start_soon(trouble, proxy, (times + place) // 2, most, rng)
            feeding.cancel_scope.cancel()
        found.left = await until_empty(server.url, PATIENCE)
        async with open_broker(server.url) as broker:
            found.outcomes = outcomes(await events(broker))
        nursery.cancel_scope.cancel()
    judge(said, found)
    result.add(found)


async def healthy(handlers: int, leases: float) -> int:
    """Run handlers that take so many leases; return how many deliveries there were too many."""
    async with Server() as server, trio.open_nursery() as nursery:
        async with open_broker(server.url) as broker:
            await prepare(broker, BUCKET_CHECKPOINTS, BUCKET_WORKERS)
            said: list[Said] = []
            for _ in range(2):
                serving = partial(employ, "partitions", "--serve", server.url, said=said)
                await nursery.start(serving)
            for number in range(handlers):
                await put_task(broker, "work", f"h{number}", leases * ACK_WAIT)
            left = await until_empty(server.url, leases * ACK_WAIT + PATIENCE)
        nursery.cancel_scope.cancel()
    return sum(event.what == "start" for event in said) - handlers + left


async def play(partitions: int, lanes: int, seed: int, most: float = LASTS) -> Result:
    """Share the partitions out among lanes that run at once; ``most`` as ``LASTS``."""
    result = Result()
    async with trio.open_nursery() as nursery:
        for number in range(lanes):
            times = (partitions + number) // lanes
            nursery.start_soon(lane, number, times, most, seed, result)
    return result


def main() -> None:
    """Play, print, and fail below the bars."""
    parser = arguments(__doc__)
    parser.add_argument("--partitions", type=int, default=300)
    parser.add_argument("--lanes", type=int, default=3, help="servers with two workers each")
    parser.add_argument("--healthy", type=int, default=50, help="handlers that take 20 leases")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    if asked.serve:
        trio.run(serve, asked.serve)
        return
    again = 0
    if asked.healthy:
        again = trio.run(healthy, asked.healthy, HEALTHY_LEASES)
    result = trio.run(play, asked.partitions, asked.lanes, asked.seed)
    report = Report()
    report.fact("partitions", result.partitions)
    report.fact("tasks", result.fed)
    report.fact("executions", result.executions)
    report.fact("executions that were cancelled because their lease ended", result.lost_leases)
    report.most("executions that overlap another one of their attempt", result.overlaps, 0)
    report.fact("least time between two executions of an attempt", result.early, "s")
    report.most("second outcomes of an attempt", result.twice, 0)
    report.most("tasks without an outcome", result.lost, 0)
    report.most("messages left unsettled", result.left, 0)
    report.most(f"redeliveries of {asked.healthy} healthy handlers", again, 0)
    report.close(asked)


if __name__ == "__main__":
    main()
