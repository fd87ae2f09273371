"""Tasks per second: this worker beside a plain asyncio loop on nats-py, in one run.

Each side gets a nats-server of its own with 10 000 one-step tasks in the queue, a handler that does
nothing, and 256 tasks at once; both publish ``step.started`` and ``step.completed`` with
acknowledgement, then acknowledge the task. The clock runs from the first task to the closed
connection; what a process costs to start is not in it. The sides take turns, each in a fresh
process; every round is checked: each task completed exactly once, the queue empty.

Run it:  python -m benchmarks.throughput
"""

import argparse
import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from collections import Counter

import trio

from benchmarks.common import ROOT, left_in_queue, memory_mib, preload, prepare, records
from trio_dagnats import TaskContext, Worker
from trio_dagnats.local import Server
from trio_dagnats.transport import open_broker
from trio_dagnats.wire.names import TASK_QUEUES

BAR = 1.5
"""What this worker must reach, as a multiple of the plain loop."""
COMPLETED = b'"step.completed"'


async def fill(url: str, tasks: int) -> None:
    """Make the streams and put the tasks into the queue."""
    async with open_broker(url) as broker:
        await prepare(broker)
        await preload(broker, "noop", [f"r{number}" for number in range(tasks)])


async def check(url: str, tasks: int) -> None:
    """Fail unless every task was completed once and the queue is empty."""
    async with open_broker(url) as broker:
        done = Counter(r.subject for r in await records(broker) if COMPLETED in r.body[:40])
        left = await left_in_queue(broker)
    assert len(done) == tasks, f"{len(done)} of {tasks} tasks were completed"
    assert set(done.values()) == {1}, "some tasks were completed twice"
    assert not left, f"the queue is not empty: {left} tasks"


def figures(tasks: int, begun: float, half: float) -> dict[str, float]:
    """Return what a side has to say at its end; ``begun`` by the performance counter."""
    seconds = time.perf_counter() - begun
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_us = (used.ru_utime + used.ru_stime) / tasks * 1e6
    return {
        "rate": tasks / seconds,
        "cpu_us": cpu_us,
        "half_mib": half,
        "end_mib": memory_mib(),
    }


async def ours(url: str, tasks: int, concurrency: int) -> dict[str, float]:
    """Run this worker until all tasks are done."""
    worker = Worker(url, concurrency=concurrency)
    left = tasks
    half = begun = 0.0
    finished = trio.Event()

    @worker.handle("noop")
    async def noop(ctx: TaskContext) -> int:
        nonlocal left, half, begun
        begun = begun or time.perf_counter()
        left -= 1
        if left == tasks // 2:
            half = memory_mib()
        if not left:
            finished.set()
        return 1

    async with worker:
        await finished.wait()
    return figures(tasks, begun, half)


async def plain(url: str, tasks: int, concurrency: int) -> dict[str, float]:
    """Do the same with nats-py alone, as its documentation shows it."""
    import nats  # noqa: PLC0415 - asyncio's side, in a process of its own
    from nats.aio.msg import Msg  # noqa: PLC0415

    client = await nats.connect(url)
    stream = client.jetstream()
    half = begun = 0.0
    left = tasks

    async def handle(message: Msg) -> None:
        nonlocal left, half, begun
        begun = begun or time.perf_counter()
        task = json.loads(message.data)
        event = {"run_id": task["run_id"], "step_id": task["step_id"], "timestamp": _now()}
        subject = f"history.{task['run_id']}"
        head = f"{task['run_id']}.{task['step_id']}"
        for kind, more, tail in (
            ("step.started", {"attempt_number": 1}, ".1"),
            ("step.completed", {"payload": 1}, ""),
        ):
            body = json.dumps({"type": kind, **event, **more}).encode()
            headers = {"Nats-Msg-Id": f"{head}.{kind}{tail}"}
            await stream.publish(subject, body, headers=headers)
        await message.ack()
        left -= 1
        if left == tasks // 2:
            half = memory_mib()

    queue = await stream.pull_subscribe("task.noop.>", durable="workers-noop", stream=TASK_QUEUES)
    running: set[asyncio.Task[None]] = set()
    taken = 0
    while taken < tasks:
        free = concurrency - len(running)
        if not free:
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        else:
            for message in await queue.fetch(min(free, tasks - taken), timeout=5):
                taken += 1
                task = asyncio.create_task(handle(message))
                running.add(task)
                task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    await client.drain()
    return figures(tasks, begun, half)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def one_round(side: str, tasks: int, concurrency: int) -> dict[str, float]:
    """Run one side in a process of its own, on a server of its own."""
    with Server() as server:
        trio.run(fill, server.url, tasks)
        command = [sys.executable, "-m", "benchmarks.throughput", "--side", side]
        command += ["--url", server.url]
        command += ["--tasks", str(tasks), "--concurrency", str(concurrency)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        if done.returncode:
            sys.exit(f"{side} failed:\n{done.stderr}")
        trio.run(check, server.url, tasks)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{side:6} {found['rate']:7.0f} tasks/s   {found['cpu_us']:4.0f} us of CPU a task   "
        f"memory at half {found['half_mib']:5.1f} MiB, at the end {found['end_mib']:5.1f} MiB",
        flush=True,
    )
    return found


def main() -> None:
    """Run both sides in turns and print the ratio; fail below the bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=["ours", "plain"], help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    found = parser.parse_args()
    if found.side == "ours":
        print(json.dumps(trio.run(ours, found.url, found.tasks, found.concurrency)))
        return
    if found.side == "plain":
        print(json.dumps(asyncio.run(plain(found.url, found.tasks, found.concurrency))))
        return
    print(f"{found.tasks} tasks, {found.concurrency} at once, {found.rounds} rounds")
    ratios = []
    for number in range(found.rounds):
        sides = ("ours", "plain") if number % 2 == 0 else ("plain", "ours")
        rate = {side: one_round(side, found.tasks, found.concurrency)["rate"] for side in sides}
        ratios.append(rate["ours"] / rate["plain"])
        print(f"ratio  {ratios[-1]:.2f}")
    middle = statistics.median(ratios)
    print(f"median ratio {middle:.2f}, the bar is {BAR}")
    sys.exit(middle < BAR)


if __name__ == "__main__":
    main()
