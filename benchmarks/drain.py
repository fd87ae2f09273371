"""SIGTERMs at random moments under load: what is lost, what runs again, and how soon.

Two worker processes share one queue that is fed all the time; now one and now the other gets a
SIGTERM at a random moment, and another process takes its place. Handlers sleep, write a checkpoint
when the drain begins, or pause; a few end only much after their cancellation, swallow it for ever,
shield themselves from it, or sit in a thread (on their first delivery; later ones end at once).

Every event of the history is read at the end: each task completed once, each start under the first
attempt number (a higher one would consume the retry budget), no failure. The hand-back is timed
from the end of the cancelled handler to the start of its next try in the other process.

Run it:  python -m benchmarks.drain
"""

import json
import logging
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import trio

from benchmarks.common import (
    Child,
    Report,
    Said,
    arguments,
    employ,
    events,
    prepare,
    put_task,
    tell,
    until_empty,
)
from trio_dagnats import TaskContext, Worker
from trio_dagnats.local import Server
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.events import HistoryEvent
from trio_dagnats.wire.names import BUCKET_CHECKPOINTS, BUCKET_WORKERS
from trio_dagnats.worker.drain.overrun import HARD_EXIT_CODE

ACK_WAIT = 5.0
"""Short, so that what a hard exit leaves to its lease comes back soon."""
CONCURRENCY = 64
BAR_HAND_BACK_MS = 500.0
BAR_EXIT_S = 2.0
PER_SECOND = 40.0
PATIENCE = 120.0
AN_HOUR = 3600.0
KINDS = {"sleeps": 70.0, "checkpoints": 20.0, "pauses": 6.0, "late": 3.0}
STUBBORN = {"swallows": 0.3, "shields": 0.3, "thread": 0.3}
"""Kinds of handlers, and how often they come."""


async def sleeps(ctx: TaskContext, seconds: float) -> None:
    """Take a while."""
    await trio.sleep(seconds)


async def checkpoints(ctx: TaskContext, seconds: float) -> None:
    """Take a while, and write down how far it came when the worker begins to drain."""
    done = float(await ctx.load_checkpoint() or 0)
    begun = trio.current_time()
    with trio.move_on_after(seconds - done):
        await ctx.draining.wait()
        await ctx.checkpoint(done + trio.current_time() - begun)
        await trio.sleep_forever()


async def pauses(ctx: TaskContext, seconds: float) -> None:
    """Wait durably."""
    await ctx.pause(seconds)


async def late(ctx: TaskContext, seconds: float) -> None:
    """End a while after it was cancelled, and return something: that is no completion."""
    try:
        await trio.sleep(seconds)
    except trio.Cancelled:
        with trio.CancelScope(shield=True):
            await trio.sleep(0.2)


async def swallows(ctx: TaskContext, seconds: float) -> None:
    """Never end, whoever cancels."""
    while ctx.deliveries == 1:
        with suppress(trio.Cancelled):
            await trio.sleep(AN_HOUR)


async def shields(ctx: TaskContext, seconds: float) -> None:
    """Never feel a cancellation."""
    with trio.CancelScope(shield=True):
        await trio.sleep(AN_HOUR if ctx.deliveries == 1 else 0)


HANDLERS = {
    "sleeps": sleeps,
    "checkpoints": checkpoints,
    "pauses": pauses,
    "late": late,
    "swallows": swallows,
    "shields": shields,
}


async def serve(url: str, grace: float) -> None:
    """Serve until SIGTERM."""
    worker = Worker(url, concurrency=CONCURRENCY, grace=grace, hard_exit=True)

    @worker.handle("work", ack_wait=ACK_WAIT)
    async def work(ctx: TaskContext) -> None:
        kind, seconds = json.loads(ctx.input)
        tell("start", run=ctx.run_id)
        try:
            await HANDLERS[kind](ctx, seconds)
        finally:
            if ctx.cancel_reason is not None:
                tell("let go", run=ctx.run_id, kind=kind)

    @worker.handle("thread", ack_wait=ACK_WAIT)
    def thread(ctx: TaskContext) -> None:
        tell("start", run=ctx.run_id)
        time.sleep(AN_HOUR if ctx.deliveries == 1 else 0)

    async with trio.open_nursery() as nursery:
        await nursery.start(worker.start)
        tell("ready")


@dataclass
class Result:
    """What was found at the end.

    Attributes:
        fed: how many tasks there were.
        exits: exit codes.
        ends: seconds that processes took to end after the grace.
        said: what all workers have told.
        left: messages that are not settled.
        history: all events.
    """

    fed: int = 0
    exits: Counter[int] = field(default_factory=Counter)
    ends: list[float] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    left: int = 0
    history: list[HistoryEvent] = field(default_factory=list)

    @property
    def completions(self) -> Counter[str]:
        """How often each run's task was completed."""
        return Counter(event.run_id for event in self.history if event.type == "step.completed")

    @property
    def lost(self) -> int:
        """Tasks that were never completed."""
        return self.fed - len(self.completions)

    @property
    def twice(self) -> int:
        """Completions beyond the first one of a task."""
        return self.completions.total() - len(self.completions)

    @property
    def spent(self) -> int:
        """Events that consume the retry budget."""
        return sum(
            event.type == "step.failed"
            or (event.type == "step.started" and event.attempt_number != 1)
            for event in self.history
        )

    @property
    def crashes(self) -> int:
        """Processes that ended otherwise than they should."""
        return self.exits.total() - self.exits[0] - self.exits[HARD_EXIT_CODE]

    def hand_backs(self) -> list[float]:
        """Return the seconds from each hand-back to the next start, pauses aside."""
        let_go: dict[str, float] = {}
        found: list[float] = []
        for said in sorted(self.said, key=lambda said: said.at):
            if said.what == "let go" and said.more["kind"] != "pauses":
                let_go[said.run] = said.at
            elif said.what == "start" and said.run in let_go:
                found.append(said.at - let_go.pop(said.run))
        return found


async def feed(broker: Broker, rng: random.Random, result: Result, kinds: dict[str, float]) -> None:
    """Put tasks into the queue at random moments, until cancelled."""
    for number in count():
        await trio.sleep(rng.expovariate(PER_SECOND))
        (kind,) = rng.choices(list(kinds), list(kinds.values()))
        task_type = "thread" if kind == "thread" else "work"
        with trio.CancelScope(shield=True):
            given = [kind, round(rng.uniform(0.05, 2.0), 3)]
            await put_task(broker, task_type, f"{kind}{number}", given)
        result.fed += 1


async def terminate(worker: Child, grace: float, result: Result) -> None:
    """Send SIGTERM and wait for the end of the process."""
    worker.process.send_signal(signal.SIGTERM)
    with trio.fail_after(PATIENCE):
        result.ends.append(await worker.gone() - grace)
    assert worker.process.returncode is not None
    result.exits[worker.process.returncode] += 1


async def play(url: str, sigterms: int, grace: float, seed: int, kinds: dict[str, float]) -> Result:
    """Terminate workers so many times, now one and now the other; read what became of the tasks."""
    rng, result = random.Random(seed), Result()
    work = partial(employ, "drain", "--serve", url, "--grace", grace, said=result.said)
    async with open_broker(url) as broker, trio.open_nursery() as workers:
        await prepare(broker, BUCKET_CHECKPOINTS, BUCKET_WORKERS)
        places: list[Child] = [await workers.start(work), await workers.start(work)]
        async with trio.open_nursery() as feeding:
            feeding.start_soon(feed, broker, rng, result, kinds)
            for number in range(sigterms):
                await trio.sleep(rng.uniform(0, 1))
                place = number % 2
                async with trio.open_nursery() as change:
                    change.start_soon(terminate, places[place], grace, result)
                    places[place] = await workers.start(work)
            feeding.cancel_scope.cancel()
        result.left = await until_empty(url, PATIENCE)
        for worker in places:
            worker.process.terminate()
    async with open_broker(url) as broker:
        result.history = await events(broker)
    return result


def main() -> None:
    """Play, print, and fail below the bars."""
    parser = arguments(__doc__)
    parser.add_argument("--sigterms", type=int, default=200)
    parser.add_argument("--grace", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    if asked.serve:
        trio.run(serve, asked.serve, asked.grace)
        return
    with Server() as server:
        kinds = {**KINDS, **STUBBORN}
        result = trio.run(play, server.url, asked.sigterms, asked.grace, asked.seed, kinds)
    report = Report()
    report.fact("tasks", result.fed)
    report.most("lost", result.lost + result.left, 0)
    report.most("completed twice", result.twice, 0)
    report.most("events that consume the retry budget", result.spent, 0)
    report.most("processes that crashed", result.crashes, 0)
    report.fact("processes that had to be left by hard_exit", result.exits[HARD_EXIT_CODE])
    report.times("hand-back to restart elsewhere", result.hand_backs(), BAR_HAND_BACK_MS)
    report.most("process gone after the grace, worst", max(result.ends), BAR_EXIT_S, "s")
    report.close(asked)


if __name__ == "__main__":
    main()
