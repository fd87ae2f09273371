"""Cancelled runs: how soon their handlers feel it, what is left of them, what the watch costs.

A worker holds many handlers, each with child tasks, all asleep. Runs are cancelled one by one at
random moments, then as fast as the slots are filled again. The time runs from the server's own
timestamp of the stored event to the handler's ``finally``. Afterwards nothing of the attempts may
be left: no task, no outcome in the history, no message in the queue.

Then no-op tasks are served with the watch and without it, by turns, each in a process of its own;
what counts is the CPU time of the process, the least of all rounds.

Run it:  python -m benchmarks.cancel
"""

import argparse
import logging
import os
import random
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from unittest.mock import patch

import trio

from benchmarks.common import (
    OUTCOMES,
    ROOT,
    Report,
    arguments,
    left_in_queue,
    living_tasks,
    preload,
    prepare,
    records,
)
from benchmarks.common.contest import TASK_TYPE, Load, fill
from benchmarks.sides import ours
from benchmarks.sides.telling import Asked
from trio_dagnats import CancelReason, TaskContext, Worker
from trio_dagnats.local import Server
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire import events
from trio_dagnats.wire.events import parse_event
from trio_dagnats.worker.attempts.timers import AgeQueue
from trio_dagnats.worker.engine.run_watch import RunWatch

BAR_MS = 50.0
BAR_PERCENT = 5.0
CHILDREN = 2
PER_SECOND = 100.0
PATIENCE = 300.0
SETTLE = 10.0


@dataclass
class Handlers:
    """Handlers that run until they are cancelled, and what became of them."""

    running: list[str] = field(default_factory=list)
    ended_ns: dict[str, int] = field(default_factory=dict)
    reasons: Counter[CancelReason | None] = field(default_factory=Counter)
    children: int = 0
    changed: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    async def hold(self, ctx: TaskContext) -> None:
        """Run until cancelled."""
        self.running.append(ctx.run_id)
        self.changed.unpark_all()
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(CHILDREN):
                    nursery.start_soon(self._child)
                await trio.sleep_forever()
        finally:
            self.ended_ns[ctx.run_id] = time.time_ns()
            self.reasons[ctx.cancel_reason] += 1
            self.changed.unpark_all()

    async def _child(self) -> None:
        self.children += 1
        try:
            await trio.sleep_forever()
        finally:
            self.children -= 1

    async def until_running(self, count: int) -> None:
        """Wait until so many run that nobody has cancelled yet."""
        while len(self.running) < count:
            await self.changed.park()

    async def until_ended(self, count: int) -> None:
        """Wait until so many have ended."""
        while len(self.ended_ns) < count:
            await self.changed.park()


@dataclass
class Result:
    """What was found after the cancels.

    Attributes:
        seconds: from the stored event to the handler's end, for those that were cancelled singly.
        reasons: what the handlers read as their reason.
        orphans: trio tasks that are left.
        published: outcomes of cancelled attempts.
        left: messages that are not settled.
        per_second: cancels per second, as fast as slots are filled again.
    """

    seconds: list[float] = field(default_factory=list)
    reasons: Counter[CancelReason | None] = field(default_factory=Counter)
    orphans: int = 0
    published: int = 0
    left: int = 0
    per_second: float = 0.0


async def cancel(broker: Broker, run_id: str) -> None:
    """Cancel a run as the engine's client does it."""
    event = events.cancelled(run_id, time.time_ns())
    deadline = trio.current_time() + PATIENCE
    await broker.store(event.subject, event.body, msg_id=event.msg_id, deadline=deadline)


async def play(url: str, singly: int, flat_out: int, in_flight: int, seed: int) -> Result:
    """Cancel so many runs one by one, so many as fast as they start, and look what is left."""
    rng, handlers, result = random.Random(seed), Handlers(), Result()
    worker = Worker(url, concurrency=in_flight)
    worker.handle("hold", handlers.hold)
    async with open_broker(url) as broker:
        await prepare(broker)
        async with worker:
            idle = await living_tasks()
            await preload(broker, "hold", [f"r{number}" for number in range(singly + flat_out)])
            single = await cancel_singly(broker, handlers, singly, in_flight, rng)
            begun = time.perf_counter()
            await cancel_all(broker, handlers, flat_out)
            await handlers.until_ended(singly + flat_out)
            result.per_second = flat_out / (time.perf_counter() - begun)
            result.left = await settled(broker)
            result.orphans = await living_tasks() - idle
        await look(broker, handlers, single, result)
    return result


async def cancel_singly(
    broker: Broker, handlers: Handlers, count: int, in_flight: int, rng: random.Random
) -> set[str]:
    """Cancel one of all that run, again and again; return which ones."""
    chosen = set[str]()
    for _ in range(count):
        await trio.sleep(rng.expovariate(PER_SECOND))
        await handlers.until_running(in_flight)
        run_id = handlers.running.pop(rng.randrange(len(handlers.running)))
        chosen.add(run_id)
        await cancel(broker, run_id)
    return chosen


async def cancel_all(broker: Broker, handlers: Handlers, count: int) -> None:
    """Cancel every run as soon as it is seen to run."""
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            await handlers.until_running(1)
            nursery.start_soon(cancel, broker, handlers.running.pop())


async def settled(broker: Broker) -> int:
    """Give the last answers their time; return how many messages are left."""
    with trio.move_on_after(SETTLE):
        while await left_in_queue(broker):
            await trio.sleep(0.05)
    return await left_in_queue(broker)


async def look(broker: Broker, handlers: Handlers, single: set[str], result: Result) -> None:
    """Read the history: when were the events stored, was anything published after them?"""
    result.reasons = handlers.reasons
    result.orphans += handlers.children
    for record in await records(broker):
        event = parse_event(record.body)
        result.published += event.type in OUTCOMES
        if event.type == events.EventType.WORKFLOW_CANCELLED and event.run_id in single:
            result.seconds.append((handlers.ended_ns[event.run_id] - record.time_ns) / 1e9)


async def no_ops(url: str, tasks: int, concurrency: int, *, watched: bool) -> float:
    """Serve tasks that do nothing; return the microseconds of CPU that each one took."""
    with ExitStack() as stack:
        if not watched:
            for owner in (AgeQueue, RunWatch):
                for name in ("add", "discard", "join", "leave"):
                    if hasattr(owner, name):
                        stack.enter_context(patch.object(owner, name, lambda *_: None))
        begun = time.process_time()
        await ours.serve(Asked(url, TASK_TYPE, "noop", tasks, concurrency, os.getpid()))
        return (time.process_time() - begun) / tasks * 1e6


def one_round(tasks: int, side: str) -> float:
    """Serve no-op tasks in a process of its own, on a server of its own."""
    with Server() as server:
        trio.run(fill, server.url, Load(tasks=tasks))
        command = [sys.executable, "-m", "benchmarks.cancel", "--serve", server.url]
        command += ["--no-ops", str(tasks), "--side", side]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return float(done.stdout.splitlines()[-1])


def cost_of_the_watch(tasks: int, rounds: int) -> tuple[float, float]:
    """Return the least microseconds of CPU for a task, with the watch and without it."""
    least = {"watched": float("inf"), "unwatched": float("inf")}
    for number in range(rounds):
        for side in sorted(least, reverse=bool(number % 2)):
            least[side] = min(least[side], one_round(tasks, side))
    return least["watched"], least["unwatched"]


def main() -> None:
    """Measure, print, and fail below the bars."""
    parser = arguments(__doc__)
    parser.add_argument("--singly", type=int, default=2000, help="cancels that are timed")
    parser.add_argument("--flat-out", type=int, default=8000, help="cancels that are not")
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--no-ops", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--side", choices=["watched", "unwatched"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    if asked.serve:
        watched = asked.side == "watched"
        print(trio.run(partial(no_ops, asked.serve, asked.no_ops, 256, watched=watched)))
        return
    with Server() as server:
        counts = (asked.singly, asked.flat_out, asked.in_flight, asked.seed)
        result = trio.run(play, server.url, *counts)
    total = asked.singly + asked.flat_out
    report = Report()
    report.times("stored cancel event to the handler's finally", result.seconds, BAR_MS)
    report.fact("cancels per second, flat out", result.per_second)
    cancelled = result.reasons[CancelReason.RUN_CANCELLED]
    report.most(f"handlers of {total} that did not read RUN_CANCELLED", total - cancelled, 0)
    report.most("orphan tasks", result.orphans, 0)
    report.most("outcomes published for cancelled attempts", result.published, 0)
    report.most("messages left unsettled", result.left, 0)
    if asked.rounds:
        watched, unwatched = cost_of_the_watch(asked.no_ops, asked.rounds)
        report.fact("a no-op task with the watch", watched, "us of CPU")
        report.fact("a no-op task without it", unwatched, "us of CPU")
        report.most("the watch for a no-op task", (watched / unwatched - 1) * 100, BAR_PERCENT, "%")
    report.close(asked)


if __name__ == "__main__":
    main()
