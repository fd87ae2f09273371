"""What growth does to the throughput: longer queues, more task types, larger payloads, processes.

Queues of 100 to 100 000 tasks, and once with the engine's bucket of runs: a task that has waited
for more than a second then has its run's status read first. One worker with 1 to 100 task types,
and with more of them than slots.
Payloads of 100 bytes to 512 KiB, taken in and returned, beside the plain asyncio loop. One to four
processes on one queue, of this worker and of the loop.

Run it:  python -m benchmarks.growth  [--parts queued types]
"""

import argparse
import logging
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import trio

from benchmarks.common import Report, Sample, arguments, until_empty
from benchmarks.common.contest import (
    Load,
    Measured,
    by_turns,
    fill,
    measure,
    note,
    read_histories,
    sample,
    serving,
)
from trio_dagnats.local import Server

PAIR = ("ours", "asyncio")
QUEUED = (100, 1000, 10_000, 100_000)
TYPES = (1, 10, 100)
FACTOR = 5
"""So many times the tasks for these: with many types the first tenths of a second are slower."""
SIZES = {"100 B": 100, "1 KiB": 1024, "64 KiB": 65_536, "512 KiB": 524_288}
PROCESSES = (1, 2, 4)
BYTES = 32 * 1024 * 1024
"""Of payloads in a queue, at most."""
PATIENCE = 300.0
BAR_QUEUED = 0.9
BAR_TYPES = 0.8
RUNS = "with runs"
FEWER = "10, with 8 slots"


def rates(found: list[Measured]) -> Sample:
    """Return the rates of all rounds."""
    return sample(one.rate for one in found)


def queued(report: Report, asked: argparse.Namespace) -> None:
    """Let queues grow."""
    loads = {str(count): Load(tasks=count) for count in asked.queued}
    longest = asked.queued[-1]
    loads[RUNS] = Load(tasks=longest, runs=True)
    found = by_turns([*loads], asked.rounds, lambda name: measure("ours", loads[name]))
    table = report.table("tasks/s by the tasks in the queue", "ours", "to the longest queue")
    for name in loads:
        table.row(name, rates(found[name]), rates(found[name]).over(rates(found[str(longest)])))
    if {1000, longest} <= set(asked.queued):
        share = rates(found[str(longest)]).over(rates(found["1000"])).median
        report.least(f"rate with {longest} in the queue to that with 1000", share, BAR_QUEUED)


def types(report: Report, asked: argparse.Namespace) -> None:
    """Let the number of task types grow."""
    loads = {str(count): Load(tasks=FACTOR * asked.tasks, types=count) for count in TYPES}
    loads[FEWER] = Load(tasks=asked.tasks // 100, types=10, concurrency=8)
    found = by_turns([*loads], asked.rounds, lambda name: measure("ours", loads[name]))
    one = rates(found["1"])
    table = report.table("tasks/s by the task types of one worker", "ours", "to one type")
    for name in loads:
        table.row(name, rates(found[name]), rates(found[name]).over(one))
    share = rates(found["100"]).over(one).median
    report.least("rate with 100 task types to that with one", share, BAR_TYPES)


def payloads(report: Report, asked: argparse.Namespace) -> None:
    """Let payloads grow."""
    table = report.table("tasks/s by the size of the payload", *PAIR, "ours : asyncio")
    for name, size in SIZES.items():
        load = Load(tasks=min(asked.tasks, BYTES // size), size=size)
        found = by_turns(PAIR, asked.rounds, partial(measure, load=load))
        ours, other = (rates(found[side]) for side in PAIR)
        table.row(name, ours, other, ours.over(other))


def together(load: Load, turn: str) -> float:
    """Let several processes of a side empty one queue; return their rate."""
    side, count = turn.split()
    with Server() as server, ExitStack() as stack:
        trio.run(fill, server.url, load)
        for _ in range(int(count)):
            stack.enter_context(serving(side, server, replace(load, tasks=0)))
        left = trio.run(until_empty, server.url, PATIENCE)
        assert not left, f"{left} tasks are left"
        stored = trio.run(read_histories, server.url)
    stored.check(load.tasks)
    note(f"{count} processes of {side}: {stored.rate:.0f} tasks/s")
    return stored.rate


def processes(report: Report, asked: argparse.Namespace) -> None:
    """Let the number of processes grow."""
    turns = [f"{side} {count}" for side in PAIR for count in PROCESSES]
    load = Load(tasks=4 * asked.tasks)
    found = by_turns(turns, asked.rounds, partial(together, load))
    table = report.table(
        "tasks/s by the processes on one queue", *PAIR, "ours : asyncio", "ours to one process"
    )
    for count in PROCESSES:
        ours, other = (sample(found[f"{side} {count}"]) for side in PAIR)
        table.row(str(count), ours, other, ours.over(other), ours.over(sample(found["ours 1"])))


PARTS = {"queued": queued, "types": types, "payloads": payloads, "processes": processes}


def main() -> None:
    """Measure, print, and fail below the bars."""
    parser = arguments(__doc__)
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--queued", nargs="+", type=int, default=list(QUEUED))
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    report = Report()
    for part in asked.parts:
        PARTS[part](report, asked)
    report.close(asked)


if __name__ == "__main__":
    main()
