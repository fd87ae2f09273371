"""Durable pauses: what they weigh, whether they hold a slot, and when they end.

One worker process with few slots pauses in many handlers at once; while all of them pause, another
task must run at once. The time is what ``ctx.pause`` returned too late. Then the worker that holds
as many pauses is killed with SIGKILL in their middle: another worker must end each of them at its
time plus the lease, at the latest, and none before its time.

Run it:  python -m benchmarks.pauses
"""

import json
import logging
from dataclasses import dataclass, field
from functools import partial

import trio

from benchmarks.common import (
    Child,
    Report,
    Said,
    arguments,
    count,
    employ,
    memory_mib,
    percentile,
    preload,
    prepare,
    put_task,
    serve_until_killed,
    tell,
    until_empty,
)
from trio_dagnats import TaskContext, Worker
from trio_dagnats.local import Server
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.names import BUCKET_CHECKPOINTS, BUCKET_WORKERS, TASK_QUEUES

BAR_KIB = 20.0
BAR_LATE_MS = 1000.0
CONCURRENCY = 100
PATIENCE = 120.0
TAKES_UP = 0.002
"""Seconds for each pause until all of them have begun: notes and checkpoints are written."""
QUIET = 10.0
"""Seconds for which all pause."""
EARLY = 0.01
"""Seconds by which clocks of two processes and the rounding of a note may differ."""


async def serve(url: str, pauses: int, seconds: float, ack_wait: float) -> None:
    """Serve until killed."""
    worker = Worker(url, concurrency=CONCURRENCY)
    entered = 0

    @worker.handle("pause", ack_wait=ack_wait)
    async def pause(ctx: TaskContext) -> None:
        nonlocal entered
        entered += 1
        tell("begun", run=ctx.run_id)
        if entered == pauses:
            tell("all pause")
        await ctx.pause(seconds, {"at": "the pause"})
        assert json.loads(await ctx.load_checkpoint() or b"") == {"at": "the pause"}
        tell("over", run=ctx.run_id)

    @worker.handle("probe")
    async def probe(ctx: TaskContext) -> None:
        tell("probed")

    await serve_until_killed(worker)


@dataclass
class Result:
    """What was found.

    Attributes:
        kib: the memory of a pause.
        probed: seconds that another task took to run while all paused.
        at_once: how many messages the server counted as pending while all paused.
        late: seconds after their time at which pauses ended.
        late_elsewhere: the same, of those whose worker was killed.
        early: how many ended before their time.
        lost: how many did not end.
        twice: how many were completed more than once.
    """

    kib: float = 0.0
    probed: float = 0.0
    at_once: int = 0
    late: list[float] = field(default_factory=list)
    late_elsewhere: list[float] = field(default_factory=list)
    early: int = 0
    lost: int = 0
    twice: int = 0


def lateness(said: list[Said], seconds: float) -> list[float]:
    """Return how long after its time each pause was over; the first try's beginning counts."""
    begun, late = dict[str, float](), list[float]()
    for event in said:
        if event.what == "begun":
            begun.setdefault(event.run, event.at)
        elif event.what == "over":
            late.append(event.at - begun[event.run] - seconds)
    return late


async def judge(broker: Broker, late: list[float], pauses: int, result: Result) -> None:
    """Count what ended early, twice or never."""
    counts = await count(broker)
    done = [number for (_, kind), number in counts.items() if kind == "step.completed"]
    result.lost += pauses - len(done)
    result.early += sum(seconds < -EARLY for seconds in late)
    result.twice += sum(number - 1 for number in done)


@dataclass(frozen=True)
class Plan:
    """How many pauses, of how many seconds, under which lease, all at once for how long."""

    pauses: int
    seconds: float
    ack_wait: float
    quiet: float = QUIET

    @property
    def arguments(self) -> list[object]:
        """What the worker process has to know."""
        bounds = ["--seconds", self.seconds, "--ack-wait", self.ack_wait]
        return ["--pauses", self.pauses, *bounds]


async def play(plan: Plan, result: Result, *, kill: bool) -> None:
    """Let many handlers pause, with or without a kill in the middle."""
    said: list[Said] = []
    async with Server() as server, open_broker(server.url) as broker:
        await prepare(broker, BUCKET_CHECKPOINTS, BUCKET_WORKERS)
        serving = partial(employ, "pauses", "--serve", server.url, *plan.arguments, said=said)
        async with trio.open_nursery() as nursery:
            worker: Child = await nursery.start(serving)
            before = memory_mib(worker.process.pid)
            await preload(broker, "pause", [f"r{number}" for number in range(plan.pauses)])
            await worker.heard(lambda told: told.what == "all pause")
            await trio.sleep(plan.quiet / 2)
            if kill:
                worker.kill()
                await nursery.start(serving)
            else:
                await look(broker, worker, result)
                result.kib = (memory_mib(worker.process.pid) - before) * 1024 / plan.pauses
            await until_empty(server.url, plan.seconds + plan.ack_wait + PATIENCE)
            nursery.cancel_scope.cancel()
        late = lateness(said, plan.seconds)
        await judge(broker, late, plan.pauses + (not kill), result)
    if kill:
        result.late_elsewhere = late
    else:
        result.late = late


async def look(broker: Broker, worker: Child, result: Result) -> None:
    """See what other tasks feel of the pauses."""
    found = await broker.consumers(TASK_QUEUES, deadline=trio.current_time() + PATIENCE)
    result.at_once = sum(state.ack_pending for state in found)
    begun = trio.current_time()
    await put_task(broker, "probe", "probe")
    await worker.heard(lambda told: told.what == "probed")
    result.probed = trio.current_time() - begun


def main() -> None:
    """Play, print, and fail below the bars."""
    parser = arguments(__doc__)
    parser.add_argument("--pauses", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, help="of a pause; what all of them need if left")
    parser.add_argument("--ack-wait", type=float, default=30.0)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    seconds = asked.seconds or asked.pauses * TAKES_UP + QUIET
    if asked.serve:
        trio.run(serve, asked.serve, asked.pauses, seconds, asked.ack_wait)
        return
    result = Result()
    for kill in (False, True):
        plan = Plan(asked.pauses, seconds, asked.ack_wait)
        trio.run(partial(play, plan, result, kill=kill))
    report = Report()
    report.most(f"memory of one of {asked.pauses} pauses", result.kib, BAR_KIB, "KiB")
    report.fact("pauses at once", result.at_once)
    report.most("a task that runs beside them", result.probed * 1000, BAR_LATE_MS, "ms")
    report.most("pauses that ended early", result.early, 0)
    report.most("pauses that did not end", result.lost, 0)
    report.most("completed twice", result.twice, 0)
    report.fact("late, p99", percentile(result.late, 0.99) * 1000, "ms")
    report.most("late, worst", max(result.late) * 1000, BAR_LATE_MS, "ms")
    worst = max(result.late_elsewhere)
    report.most("late after a kill -9, worst", worst, asked.ack_wait + 1, "s")
    report.close(asked)


if __name__ == "__main__":
    main()
