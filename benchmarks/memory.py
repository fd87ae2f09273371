"""What a task weighs: while it waits for a signal, in flight, afterwards, and with its payload.

Waiting: many handlers in ``wait_for_signal``. In flight: as many handlers that do not end, beside
the plain asyncio loop and the straightforward trio-asyncio worker. Afterwards: the memory of a
process that has done many tasks, after a tenth, half and all of them. Payload: the most that Python
had allocated at once for one task, in copies of its input (which ``noop`` returns, and ``swallow``
does not).

Run it:  python -m benchmarks.memory  [--parts waiting payloads]
"""

import argparse
import logging
import time
from functools import partial

import trio

from benchmarks.common import Report, arguments, events, memory_mib, prepare
from benchmarks.common.contest import (
    BUCKETS,
    TASK_TYPE,
    Load,
    by_turns,
    fill,
    measure,
    note,
    sample,
    serving,
)
from benchmarks.common.publisher import Publisher
from benchmarks.signals import all_wait
from trio_dagnats.local import Server
from trio_dagnats.transport import open_broker

SIDES = ("ours", "asyncio", "trio-asyncio")
PAIR = ("ours", "asyncio")
KIB, MIB = 1024, 1024**2
SIZE = 512 * KIB
PATIENCE = 120.0
SETTLE = 1.0
BAR_WAIT_KIB = 20.0
BAR_COPIES = 3.0
WORKS = ("swallow", "noop")


async def weigh_waits(waits: int) -> float:
    """Return the KiB of a wait for a signal."""
    async with (
        Server() as server,
        open_broker(server.url) as broker,
        trio.open_nursery() as nursery,
    ):
        await prepare(broker, *BUCKETS)
        runs = [f"r{number}" for number in range(waits)]
        _, kib = await all_wait(nursery, server.url, broker, runs)
        nursery.cancel_scope.cancel()
    note(f"a wait: {kib:.1f} KiB")
    return kib


async def all_started(url: str, count: int) -> None:
    """Wait until so many tasks have started."""
    async with open_broker(url) as broker:
        with trio.fail_after(PATIENCE):
            while len(await events(broker)) < count:
                await trio.sleep(0.2)


def weigh_in_flight(count: int, side: str) -> float:
    """Return the KiB of a task whose handler runs."""
    with Server() as server:
        trio.run(fill, server.url, Load(tasks=0))
        load = Load(tasks=0, concurrency=count, work="hold")
        with serving(side, server, load) as pid, Publisher(server.url) as publisher:
            time.sleep(SETTLE)
            before = memory_mib(pid)
            for number in range(count):
                publisher.put(TASK_TYPE, f"r{number}")
            trio.run(all_started, server.url, count)
            kib = (memory_mib(pid) - before) * KIB / count
    note(f"{side}, in flight: {kib:.1f} KiB")
    return kib


def waiting(report: Report, asked: argparse.Namespace) -> None:
    """Weigh waits."""
    found = sample(trio.run(weigh_waits, asked.waits) for _ in range(asked.rounds))
    table = report.table(f"{asked.waits} waits for a signal", "ours")
    table.row("KiB of each of them", found)
    report.most(f"KiB of each of {asked.waits} waits", found.median, BAR_WAIT_KIB, "KiB")


def in_flight(report: Report, asked: argparse.Namespace) -> None:
    """Weigh tasks in flight."""
    table = report.table("KiB of a task in flight", *SIDES)
    for count in asked.in_flight:
        found = by_turns(SIDES, asked.rounds, partial(weigh_in_flight, count))
        table.row(f"{count} in flight", *(sample(found[side]) for side in SIDES))


def afterwards(report: Report, asked: argparse.Namespace) -> None:
    """Weigh processes that have done many tasks."""
    columns = ("after a tenth", "after half", "after all", "bytes more per task, second half")
    table = report.table(f"MiB of a process that does {asked.tasks} tasks", *columns)
    found = by_turns(PAIR, asked.rounds, lambda side: measure(side, Load(tasks=asked.tasks)))
    for side in PAIR:
        ones = found[side]
        grown = sample((one.end_mib - one.half_mib) * MIB / asked.tasks * 2 for one in ones)
        parts = (
            sample(one.early_mib for one in ones),
            sample(one.half_mib for one in ones),
            sample(one.end_mib for one in ones),
        )
        table.row(side, *parts, grown)


def copies(work: str, side: str) -> float:
    """Return how many copies of its payload a task had at once, at most."""
    load = Load(tasks=4, concurrency=1, work=work, size=SIZE)
    return measure(side, load, "trace").peak / SIZE


def payloads(report: Report, asked: argparse.Namespace) -> None:
    """Count copies of a payload."""
    table = report.table(f"copies of a payload of {SIZE // KIB} KiB", *PAIR)
    for work in WORKS:
        found = by_turns(PAIR, asked.rounds, partial(copies, work))
        what = "taken in" if work == "swallow" else "taken in and returned"
        ours, other = (sample(found[side]) for side in PAIR)
        table.row(what, ours, other)
        report.most(f"copies of a payload that is {what}", ours.median, BAR_COPIES)


PARTS = {
    "waiting": waiting,
    "in-flight": in_flight,
    "payloads": payloads,
    "afterwards": afterwards,
}


def main() -> None:
    """Weigh, print, and fail above the bars."""
    parser = arguments(__doc__)
    parser.add_argument("--parts", nargs="+", choices=[*PARTS], default=[*PARTS])
    parser.add_argument("--waits", type=int, default=10_000)
    parser.add_argument("--in-flight", nargs="+", type=int, default=[1000, 5000])
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    report = Report()
    for part in asked.parts:
        PARTS[part](report, asked)
    report.close(asked)


if __name__ == "__main__":
    main()
