"""Waits for signals: what they weigh, how soon they wake, and what no outage makes them miss.

One worker process waits in many handlers at once. A thousand signals arrive in one second; then
the server is killed and started again while signals are sent right before and right after it, when
the worker may not be back yet. Last, approvals arrive at workers that are killed with SIGKILL
between the arrival and the next checkpoint: the next worker's handler must get them again.

Run it:  python -m benchmarks.signals
"""

import logging
import random
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import trio

from benchmarks.common import (
    SOON,
    Child,
    Report,
    Said,
    arguments,
    employ,
    events,
    memory_mib,
    preload,
    prepare,
    serve_until_killed,
    tell,
    until_empty,
)
from trio_dagnats import TaskContext, Worker
from trio_dagnats.local import Server
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.names import (
    BUCKET_CHECKPOINTS,
    BUCKET_SIGNALS,
    BUCKET_WORKERS,
    TASK_QUEUES,
    WORKFLOW_HISTORY,
    signal_key,
)
from trio_dagnats.wire.text import compact

BAR_KIB = 20.0
BAR_MS = 100.0
CONCURRENCY = 100
ACK_WAIT = 300.0
SHORT_ACK_WAIT = 2.0
BURST_SECONDS = 1.0
PATIENCE = 120.0
TASK_TYPES = ("wait", "approve")
QUIET = 0.0005
"""Seconds for each wait, after which the last of them has its subscriptions."""
BUCKETS = (BUCKET_CHECKPOINTS, BUCKET_SIGNALS, BUCKET_WORKERS)
STREAMS = (TASK_QUEUES, WORKFLOW_HISTORY, *(f"KV_{bucket}" for bucket in BUCKETS))


async def serve(url: str, waits: int) -> None:
    """Serve until killed."""
    worker = Worker(url, concurrency=CONCURRENCY)
    entered = 0

    @worker.handle("wait", ack_wait=ACK_WAIT)
    async def wait(ctx: TaskContext) -> None:
        nonlocal entered
        entered += 1
        if entered == waits:
            tell("all wait")
        sent_at = float(await ctx.wait_for_signal("go"))
        tell("woken", run=ctx.run_id, took=time.monotonic() - sent_at)

    @worker.handle("approve", ack_wait=SHORT_ACK_WAIT)
    async def approve(ctx: TaskContext) -> bytes:
        approval = await ctx.wait_for_signal("go")
        tell("approved", run=ctx.run_id)
        await trio.sleep(random.uniform(0, SHORT_ACK_WAIT))
        await ctx.checkpoint(approval)
        return approval

    await serve_until_killed(worker)


@dataclass
class Result:
    """What was found.

    Attributes:
        kib: the memory of a wait.
        consumers: JetStream consumers while all wait, but for the one of the queue.
        burst: seconds from sending to waking, of the burst.
        missed: signals that woke nobody.
        twice: waits that woke more than once.
        killed: workers that were killed with approvals in hand.
        again: approvals that were returned a second time, after a kill.
        lost: approvals that were not committed in the end.
    """

    kib: float = 0.0
    consumers: int = 0
    burst: list[float] = field(default_factory=list)
    missed: int = 0
    twice: int = 0
    killed: int = 0
    again: int = 0
    lost: int = 0


async def send(broker: Broker, run_id: str, after: float = 0.0) -> None:
    """Send a run its signal: the time at which it was sent."""
    await trio.sleep(after)
    body = compact(time.monotonic())
    deadline = trio.current_time() + SOON
    await broker.kv_put(BUCKET_SIGNALS, signal_key(run_id, "go"), body, deadline=deadline)


async def send_all(broker: Broker, run_ids: Iterable[str], seconds: float = 0.0) -> None:
    """Send signals, spread over so many seconds."""
    async with trio.open_nursery() as nursery:
        for run_id in run_ids:
            nursery.start_soon(send, broker, run_id, random.uniform(0, seconds))


async def woken(worker: Child, run_ids: set[str]) -> Counter[str]:
    """Wait until these runs were woken, for a while at most; count how often each one was."""
    with trio.move_on_after(PATIENCE):
        await worker.heard(lambda said: said.what == "woken" and said.run in run_ids, len(run_ids))
    return Counter(s.run for s in worker.said if s.what == "woken" and s.run in run_ids)


async def settled_consumers(broker: Broker) -> int:
    """Count the consumers that stay while all wait, but for those of the task types.

    The first look at the history of a run makes one, for a moment.
    """
    found = 0
    with trio.move_on_after(SOON):
        while (found := await consumers(broker) - len(TASK_TYPES)) > 0:
            await trio.sleep(0.1)
    return found


async def consumers(broker: Broker) -> int:
    """Count the consumers of all streams that a wait could have made one on."""
    deadline = trio.current_time() + SOON
    return sum([len(await broker.consumers(name, deadline=deadline)) for name in STREAMS])


async def all_wait(
    nursery: trio.Nursery, url: str, broker: Broker, runs: Sequence[str]
) -> tuple[Child, float]:
    """Let a worker wait in a handler for each run; return it, and the KiB that each one weighs."""
    serving = partial(employ, "signals", "--serve", url, "--waits", len(runs))
    worker: Child = await nursery.start(serving)
    before = memory_mib(worker.process.pid)
    await preload(broker, "wait", runs)
    await worker.heard(lambda said: said.what == "all wait")
    await trio.sleep(QUIET * len(runs))
    return worker, (memory_mib(worker.process.pid) - before) * 1024 / len(runs)


async def wait_and_wake(waits: int, burst: int, around: int, result: Result) -> None:
    """Let many handlers wait; send a burst, and signals around a restart of the server."""
    runs = [f"r{number}" for number in range(waits)]
    with tempfile.TemporaryDirectory() as folder:
        async with Server(store_dir=folder) as server, trio.open_nursery() as nursery:
            async with open_broker(server.url) as broker:
                await prepare(broker, *BUCKETS)
                worker, result.kib = await all_wait(nursery, server.url, broker, runs)
                result.consumers = await settled_consumers(broker)

                woke = runs[:burst]
                await send_all(broker, woke, BURST_SECONDS)
                found = await woken(worker, set(woke))
                result.burst = [float(str(s.more["took"])) for s in told(worker, "woken")]

                early, late = runs[burst : burst + around], runs[burst + around :][:around]
                await send_all(broker, early)
                server.kill()
                await trio.to_thread.run_sync(server.restart)
                await send_all(broker, late)
                found += await woken(worker, {*early, *late})
            nursery.cancel_scope.cancel()
    result.missed = len(woke) + len(early) + len(late) - len(found)
    result.twice = found.total() - len(found)


def told(worker: Child, what: str) -> list[Said]:
    """Return what a worker has said of a kind."""
    return [said for said in worker.said if said.what == what]


async def approvals(count: int, kills: int, seed: int, result: Result) -> None:
    """Send approvals, and kill workers that have got some and committed few of them.

    At most four times: a task that was started six times counts as one that kills its workers.
    """
    rng, said = random.Random(seed), list[Said]()
    runs = [f"a{number}" for number in range(count)]
    async with Server() as server, open_broker(server.url) as broker:
        await prepare(broker, *BUCKETS)
        await preload(broker, "approve", runs)
        serving = partial(employ, "signals", "--serve", server.url, said=said)
        async with trio.open_nursery() as nursery:
            for number in range(kills):
                worker: Child = await nursery.start(serving)
                if not number:
                    await send_all(broker, runs)
                await worker.heard(lambda told: told.what == "approved", rng.randint(1, count // 4))
                worker.kill()
                await worker.gone()
                result.killed += 1
            await nursery.start(serving)
            await until_empty(server.url, PATIENCE)
            nursery.cancel_scope.cancel()
        done = {event.run_id for event in await events(broker) if event.type == "step.completed"}
    result.lost += count - len(done)
    result.again += sum(told.what == "approved" for told in said) - count


def main() -> None:
    """Play, print, and fail below the bars."""
    parser = arguments(__doc__)
    parser.add_argument("--waits", type=int, default=10_000)
    parser.add_argument("--burst", type=int, default=1000, help="signals in one second")
    parser.add_argument("--around", type=int, default=1000, help="before a restart, and after it")
    parser.add_argument("--approvals", type=int, default=40)
    parser.add_argument("--kills", type=int, default=3, help="of workers, in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    if asked.serve:
        trio.run(serve, asked.serve, asked.waits)
        return
    result = Result()
    trio.run(wait_and_wake, asked.waits, asked.burst, asked.around, result)
    for number in range(asked.rounds):
        trio.run(approvals, asked.approvals, asked.kills, asked.seed + number, result)
    report = Report()
    report.most(f"memory of one of {asked.waits} waits", result.kib, BAR_KIB, "KiB")
    report.most("JetStream consumers of waits", result.consumers, 0)
    report.times(f"wake-up while {asked.burst} arrive in a second", result.burst, BAR_MS)
    report.most("signals missed, those around a restart of the server too", result.missed, 0)
    report.most("waits that woke twice", result.twice, 0)
    report.fact("workers killed with approvals in hand", result.killed)
    report.fact("approvals returned again after a kill", result.again)
    total = asked.approvals * asked.rounds
    report.most(f"approvals of {total} that were lost", result.lost, 0)
    report.close(asked)


if __name__ == "__main__":
    main()
