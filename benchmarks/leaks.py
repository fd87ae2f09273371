"""A worker that is started and stopped a hundred times: what is left of it?

All in one program, on a connection of its own or on a client that the program has connected, by
turns: stopped in peace, with handlers asleep, waiting and in threads; by an error in the body; by
``move_on_after`` at a random moment, often before it serves; three workers at once. Afterwards
there must be no trio task, thread, file descriptor or subscription more than before.

What was in flight is handed back each time. The lease is long: a hand-back that does not go out
leaves its task in the queue, and a last worker, which completes everything, does not get it.

Run it:  python -m benchmarks.leaks
"""

import gc
import logging
import random
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import nats
import trio
from nats.aio.client import Client

from benchmarks.common import (
    Report,
    arguments,
    count,
    living_tasks,
    memory_mib,
    preload,
    prepare,
    until_empty,
)
from trio_dagnats import TaskContext, Worker
from trio_dagnats.local import Server
from trio_dagnats.transport import NatsSource, open_broker, trio_asyncio
from trio_dagnats.wire.names import BUCKET_CHECKPOINTS, BUCKET_SIGNALS, BUCKET_WORKERS

TYPES = ("work", "wait", "thread")
TASKS = 10
"""Tasks of each type that are in flight whenever a worker serves."""
GRACE = 0.05
MOST = 0.3
"""Seconds after which ``move_on_after`` ends a worker, at most."""
PATIENCE = 60.0


class Oops(Exception):  # noqa: N818 - an error of the program's own
    """What goes wrong in the body."""


@dataclass
class Program:
    """A program that uses workers in all the ways there are.

    Attributes:
        nats: where its workers connect, or what they connect with.
        rng: chooses moments.
        over: handlers shall complete.
        unfit: bodies that ended otherwise than they should.
    """

    nats: NatsSource
    rng: random.Random
    over: bool = False
    unfit: int = 0

    def worker(self, *task_types: str) -> Worker:
        """Make a worker that serves these task types."""
        handlers = {"work": self._work, "wait": self._wait, "thread": self._thread}
        worker = Worker(self.nats, grace=GRACE)
        for task_type in task_types:
            worker.handle(task_type, handlers[task_type])
        return worker

    async def _work(self, _ctx: TaskContext) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 0 if self.over else float("inf"))

    async def _wait(self, ctx: TaskContext) -> None:
        if not self.over:
            await ctx.wait_for_signal("never")

    def _thread(self, ctx: TaskContext) -> None:
        while not (self.over or trio.from_thread.run_sync(ctx.draining.is_set)):
            time.sleep(0.01)

    async def in_peace(self) -> None:
        """Serve for a moment."""
        async with self.worker(*TYPES):
            await trio.sleep(self.rng.uniform(0, MOST))

    async def error_in_the_body(self) -> None:
        """Serve until something else goes wrong; that is what leaves the block."""
        error = Oops()
        try:
            async with self.worker(*TYPES):
                await trio.sleep(self.rng.uniform(0, MOST))
                raise error
        except Oops as found:
            self.unfit += found is not error
        else:
            self.unfit += 1

    async def moved_on(self) -> None:
        """Give up at a random moment, perhaps before the worker serves."""
        with trio.move_on_after(self.rng.uniform(0, MOST)) as scope:
            async with self.worker(*TYPES):
                await trio.sleep_forever()
        self.unfit += not scope.cancelled_caught

    async def three_at_once(self) -> None:
        """Serve by several workers in one program."""
        async with trio.open_nursery() as nursery:
            workers = [self.worker(task_type) for task_type in TYPES]
            for worker in workers:
                await nursery.start(_start, worker)
            await trio.sleep(self.rng.uniform(0, MOST))
            for worker in workers:
                worker.stop()

    @property
    def ways(self) -> list[Callable[[], Awaitable[None]]]:
        """All ways in which a worker is used."""
        return [self.in_peace, self.error_in_the_body, self.moved_on, self.three_at_once]


async def _start(worker: Worker, task_status: trio.TaskStatus[None]) -> None:
    await worker.start(handle_signals=False, task_status=task_status)


@dataclass
class Held:
    """What a process holds."""

    tasks: int
    threads: int
    descriptors: int
    subscriptions: int
    mib: float


def descriptors() -> int:
    """Count the open files, sockets and pipes of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def held(client: Client) -> Held:
    """Count what this process holds; threads that trio keeps for later do not count."""
    gc.collect()
    busy = [t for t in threading.enumerate() if not t.name.startswith("Trio thread")]
    return Held(
        tasks=await living_tasks(),
        threads=len(busy),
        descriptors=descriptors(),
        subscriptions=len(client._subs),  # noqa: SLF001 - nats-py has no other way to ask
        mib=memory_mib(),
    )


@dataclass
class Result:
    """What was found."""

    leaked: dict[str, int] = field(default_factory=dict)
    mib: float = 0.0
    unfit: int = 0
    left: int = 0
    completed: int = 0
    twice: int = 0


async def play(url: str, cycles: int, seed: int) -> Result:
    """Start and stop workers so many times; count what is left of them."""
    rng, result = random.Random(seed), Result()
    async with open_broker(url) as broker:
        await prepare(broker, BUCKET_CHECKPOINTS, BUCKET_SIGNALS, BUCKET_WORKERS)
        for task_type in TYPES:
            await preload(broker, task_type, [f"{task_type}{number}" for number in range(TASKS)])
    async with trio_asyncio.open_loop():
        client = await trio_asyncio.aio_as_trio(nats.connect)(url)
        programs = [Program(url, rng), Program(client, rng)]
        ways = [way for program in programs for way in program.ways]
        for way in ways:  # once before it counts: caches fill, modules load
            await way()
        before = await held(client)
        for number in range(cycles):
            await ways[number % len(ways)]()
        after = await held(client)
        result.mib = after.mib - before.mib
        for what in ("tasks", "threads", "descriptors", "subscriptions"):
            result.leaked[what] = getattr(after, what) - getattr(before, what)
        result.unfit = sum(program.unfit for program in programs)
        programs[0].over = True
        async with programs[0].worker(*TYPES):
            result.left = await until_empty(url, PATIENCE)
        await trio_asyncio.aio_as_trio(client.close)()
    async with open_broker(url) as broker:
        counts = await count(broker)
    done = [times for (_, kind), times in counts.items() if kind == "step.completed"]
    result.completed, result.twice = len(done), sum(times - 1 for times in done)
    return result


def main() -> None:
    """Play, print, and fail below the bars."""
    parser = arguments(__doc__)
    parser.add_argument("--cycles", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    with Server() as server:
        result = trio.run(play, server.url, asked.cycles, asked.seed)
    report = Report()
    for what, number in result.leaked.items():
        report.most(f"{what} left after {asked.cycles} starts and stops", number, 0)
    report.fact("memory grew by", result.mib, "MiB")
    report.most("bodies that ended otherwise than they should", result.unfit, 0)
    report.most("tasks whose hand-back did not go out", result.left, 0)
    report.most("tasks not completed in the end", TASKS * len(TYPES) - result.completed, 0)
    report.most("completed twice", result.twice, 0)
    report.close(asked)


if __name__ == "__main__":
    main()
