"""Tasks per second with several processes on one queue: ``trio-dagnats run --processes N``.

Each round has a nats-server of its own with 10 000 one-step tasks in the queue. The processes
start, and each takes as many tasks as it may run at once; their handlers wait until all processes
have done so. The clock runs from there to the last event that the server stored. The numbers of
processes take turns; every round is checked: each task completed exactly once, the queue empty.

``--busy`` gives each handler so many milliseconds of Python to compute: a handler without any work
measures the server as much as the workers.

Run it:  python -m benchmarks.processes
"""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from benchmarks.common import LATE, ROOT, count, left_in_queue, preload, prepare, records
from trio_dagnats import TaskContext, Worker
from trio_dagnats.local import Server
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import Broker
from trio_dagnats.worker.handlers.register import ACK_WAIT
from trio_dagnats.worker.intake.durables import Durable
from trio_dagnats.worker.intake.served import Served
from trio_dagnats.worker.intake.source import find

TARGET = ROOT / "benchmarks" / "processes.py"
CONCURRENCY = 64
DONE = "step.completed"
GATE = Path(os.environ.get("BENCHMARK_GATE", "/"))
BUSY_NS = int(float(os.environ.get("BENCHMARK_BUSY", "0")) * 1e6)

worker = Worker("nats://nobody:1", concurrency=CONCURRENCY)
opened = trio.Event()


@worker.handle("noop")
async def noop(ctx: TaskContext) -> int:
    """Wait for the gate the first time, then compute for a while."""
    while not opened.is_set():
        await trio.sleep(0.01)
        _look()
    until = time.thread_time_ns() + BUSY_NS
    while BUSY_NS and time.thread_time_ns() < until:
        pass
    return 1


def _look() -> None:
    if GATE.exists():
        opened.set()


@asynccontextmanager
async def serving(url: str, processes: int, gate: Path, busy: float) -> AsyncIterator[None]:
    """Run the processes for the length of a block."""
    command = [sys.executable, "-m", "trio_dagnats.cli.main", "run", str(TARGET)]
    more = {"NATS_URL": url, "BENCHMARK_GATE": str(gate), "BENCHMARK_BUSY": str(busy)}
    process = await trio.lowlevel.open_process(
        [*command, "--processes", str(processes)],
        env={**os.environ, **more, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
    )
    try:
        yield
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        process.kill()


async def until_stored(broker: Broker, kind: str, number: int) -> None:
    """Wait until so many events of a kind are stored."""
    with trio.fail_after(LATE):
        while sum(n for (_, found), n in (await count(broker)).items() if found == kind) < number:
            await trio.sleep(0.5)


def open_gate(gate: Path) -> int:
    """Let the handlers run; return when that was."""
    gate.touch()
    return time.time_ns()


async def make_durable(broker: Broker) -> None:
    """Make the workers' durable first, as in a fleet that has run before.

    Of a task that is older than it nobody is sure that this is its first delivery.
    """
    served = Served(task_type="noop", group="", concurrency=None, ack_wait=ACK_WAIT)
    durable = Durable(broker, served)
    await durable.ensure(await find([durable]))


async def measure(processes: int, tasks: int, busy: float, gate: Path) -> float:
    """Return the tasks per second of so many processes."""
    async with Server() as server, open_broker(server.url) as broker:
        await prepare(broker)
        await make_durable(broker)
        await preload(broker, "noop", [f"r{number}" for number in range(tasks)])
        async with serving(server.url, processes, gate, busy):
            await until_stored(broker, "step.started", processes * CONCURRENCY)
            begun_ns = open_gate(gate)
            with trio.fail_after(LATE):
                while await left_in_queue(broker):
                    await trio.sleep(0.1)
            ended_ns = max(record.time_ns for record in await records(broker))
        done = {key: n for key, n in (await count(broker)).items() if key[1] == DONE}
        assert len(done) == tasks, f"{len(done)} of {tasks} tasks were completed"
        assert set(done.values()) == {1}, "some tasks were completed twice"
    return tasks / (ended_ns - begun_ns) * 1e9


def main() -> None:
    """Let the numbers of processes take turns; print the medians and their ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", type=float, default=0.0, help="milliseconds of each handler")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    asked = parser.parse_args()
    rates: dict[int, list[float]] = {number: [] for number in asked.processes}
    for turn in range(asked.rounds):
        for number in asked.processes[:: 1 if turn % 2 == 0 else -1]:
            with tempfile.TemporaryDirectory() as directory:
                gate = Path(directory) / "gate"
                rate = trio.run(measure, number, asked.tasks, asked.busy, gate)
            rates[number].append(rate)
            print(f"{number} processes  {rate:7.0f} tasks/s", flush=True)
    one = statistics.median(rates[asked.processes[0]])
    print(f"{asked.tasks} tasks, {asked.busy:g} ms each, {os.cpu_count()} cores")
    for number, found in rates.items():
        middle = statistics.median(found)
        print(
            f"{number} processes: median {middle:.0f} tasks/s ({min(found):.0f} to "
            f"{max(found):.0f}), {middle / one:.2f} of the first"
        )


if __name__ == "__main__":
    main()
