"""Latency: from the publishing of a task to its stored completion, by the machine's one clock.

Idle: both workers are up on one server, and get a task each by turns, with pauses of random length.
Half load: each worker for itself gets tasks at half of the rate that it has just reached, and ours
also at half of the other's. Last, a handler that awaits 10 ms, 256 of them at once on a full queue:
how much later than after 10 ms its completion is stored, counted from its stored start, and what is
left of the rate.

Run it:  python -m benchmarks.latency
"""

import argparse
import logging
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import trio

from benchmarks.common import Report, Sample, Table, arguments, percentile, until_empty
from benchmarks.common.children import ROOT
from benchmarks.common.contest import (
    TASK_TYPE,
    Load,
    Measured,
    Stored,
    by_turns,
    fill,
    measure,
    note,
    read_histories,
    sample,
    serving,
)
from benchmarks.common.publisher import Publisher
from benchmarks.sides.telling import cpu_seconds
from trio_dagnats.local import Server

SIDES = ("ours", "asyncio")
LOADS = ("ours ours", "ours asyncio", "asyncio asyncio")
"""Who works at half of whose rate."""
AT_ONCE = 256
IDLE_AT_ONCE = (1, AT_ONCE)
PAUSES = (0.005, 0.02)
"""Seconds between two tasks of an idle worker, at least and at most."""
WARM = 50
"""Tasks before those that count."""
PATIENCE = 30.0
HANDLER_MS = 10.0
BAR_IDLE = 1.05
BAR_ADDED_MS = 20.0
BAR_SHARE = 0.8
SHARES = {"p50": 0.5, "p99": 0.99, "worst": 1.0}
Times = list[float]


def latencies(stored: Stored, sent_ns: dict[str, int]) -> Times:
    """Return the milliseconds from publishing to the stored completion."""
    return [(stored.times_ns[run][-1] - begun) / 1e6 for run, begun in sent_ns.items()]


def finish(url: str, tasks: int) -> Stored:
    """Wait until all are done; return the histories, which must be right."""
    left = trio.run(until_empty, url, PATIENCE)
    assert not left, f"{left} tasks are left"
    stored = trio.run(read_histories, url)
    stored.check(tasks)
    return stored


def idle(tasks: int, at_once: int, rng: random.Random) -> dict[str, Times]:
    """Give both workers so many tasks by turns, with pauses; return the latencies of each."""
    load = Load(tasks=0, concurrency=at_once)
    sent: dict[str, dict[str, int]] = {side: {} for side in SIDES}
    with Server() as server:
        trio.run(fill, server.url, Load(tasks=0))
        with (
            serving("ours", server, load, "ours"),
            serving("asyncio", server, load, "asyncio"),
            Publisher(server.url) as publisher,
        ):
            for number in range(WARM + tasks):
                for side in SIDES:
                    time.sleep(rng.uniform(*PAUSES))
                    run_id = f"{side}{number}"
                    sent[side][run_id] = publisher.put(side, run_id)
            stored = finish(server.url, len(SIDES) * (WARM + tasks))
    found = {side: latencies(stored, sent[side])[WARM:] for side in SIDES}
    told = ", ".join(f"{side} p50 {percentile(found[side], 0.5):.2f} ms" for side in SIDES)
    note(f"idle, {at_once} at once: {told}")
    return found


@dataclass(frozen=True, slots=True)
class Half:
    """What a worker did at half of its rate: latencies, microseconds of CPU for a task."""

    times: Times
    client_us: float


def half_load(turn: str, tasks: int) -> Half:
    """Give a worker tasks at half of the rate that it, or the other one, reaches (``LOADS``)."""
    side, like = turn.split()
    rate = measure(like, Load(tasks=tasks, concurrency=AT_ONCE)).rate / 2
    sent: dict[str, int] = {}
    with Server() as server:
        trio.run(fill, server.url, Load(tasks=0))
        load = Load(tasks=0, concurrency=AT_ONCE)
        with serving(side, server, load) as pid, Publisher(server.url) as publisher:
            used, begun = cpu_seconds(pid), time.perf_counter()
            for number in range(tasks):
                early = begun + number / rate - time.perf_counter()
                if early > 0:
                    time.sleep(early)
                sent[f"r{number}"] = publisher.put(TASK_TYPE, f"r{number}")
            stored = finish(server.url, tasks)
            used = cpu_seconds(pid) - used
    found = Half(latencies(stored, sent)[WARM:], used / tasks * 1e6)
    note(f"{side} at {rate:.0f} tasks/s: p50 {percentile(found.times, 0.5):.2f} ms")
    return found


def added(found: Measured) -> Times:
    """Return by how many milliseconds more than its 10 a handler's end was later than its start."""
    return [span - HANDLER_MS for span in found.spans_ms]


def shares(rounds: Sequence[Times], share: float) -> Sample:
    """Return a percentile of each round."""
    return sample(percentile(found, share) for found in rounds)


def compare(table: Table, label: str, rounds: dict[str, list[Times]]) -> None:
    """Add rows for the percentiles of both sides."""
    for name, share in SHARES.items():
        ours, other = (shares(rounds[side], share) for side in SIDES)
        table.row(f"{label}, {name}", ours, other, ours.over(other))


def waiting(report: Report, asked: argparse.Namespace) -> None:
    """Measure idle workers."""
    rng = random.Random(asked.seed)
    table = report.table("ms from publishing to stored completion", *SIDES, "ours : asyncio")
    for at_once in IDLE_AT_ONCE:
        turns = [idle(asked.idle_tasks, at_once, rng) for _ in range(asked.rounds)]
        rounds = {side: [turn[side] for turn in turns] for side in SIDES}
        compare(table, f"idle, concurrency {at_once}", rounds)
        ours, other = (shares(rounds[side], 0.5) for side in SIDES)
        what = f"p50 of an idle worker of concurrency {at_once} to asyncio's"
        report.most(what, ours.over(other).median, BAR_IDLE)


def loaded(report: Report, asked: argparse.Namespace) -> None:
    """Measure workers at half of a rate."""
    table = report.table("ms from publishing to stored completion, half load", *SIDES, "ratio")
    halves = by_turns(LOADS, asked.rounds, lambda turn: half_load(turn, asked.tasks))
    other = halves["asyncio asyncio"]
    for label, ours in (("own rate", halves["ours ours"]), ("asyncio's", halves["ours asyncio"])):
        pair = {"ours": ours, "asyncio": other}
        compare(table, f"half of {label}", {s: [h.times for h in pair[s]] for s in SIDES})
        used = [sample(half.client_us for half in pair[side]) for side in SIDES]
        table.row(f"half of {label}, us of CPU for a task", *used, used[0].over(used[1]))


def sleep_us() -> float:
    """Return what trio itself takes for one of the sleeps, in microseconds of CPU."""
    module = [sys.executable, "-m", "benchmarks.sides.asleep"]
    run = [*module, str(AT_ONCE), str(HANDLER_MS / 1e3)]
    return float(subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT).stdout)


def most_left(report: Report, quick: Sequence[float], asleep: Sequence[float]) -> None:
    """Tell what would be left of the rate if a sleep cost nothing but what trio takes for it."""
    columns = ("us of CPU of a no-op task", "of a bare trio.sleep", "most that can be left")
    table = report.table("what bounds the share", *columns)
    bounds = [task / (task + sleep) for task, sleep in zip(quick, asleep, strict=True)]
    table.row("ours", sample(quick), sample(asleep), sample(bounds))


def sleeping(report: Report, asked: argparse.Namespace) -> None:
    """Measure what a handler of 10 ms costs when 256 of them run at once."""
    table = report.table(
        f"handlers of {HANDLER_MS:g} ms, {AT_ONCE} at once",
        *("no-op tasks/s", "10 ms tasks/s", "share", "added ms, p50", "p99", "worst"),
    )
    alone: list[float] = []

    def play(turn: str) -> Measured:
        side, work = turn.split()
        if turn == "ours noop":
            alone.append(sleep_us())
        return measure(side, Load(tasks=asked.tasks, work=work))

    played = by_turns(
        [f"{side} {work}" for side in SIDES for work in ("noop", "sleep")],
        asked.rounds,
        play,
    )
    for side in SIDES:
        quick = sample(one.rate for one in played[f"{side} noop"])
        slow = sample(one.rate for one in played[f"{side} sleep"])
        more = [added(one) for one in played[f"{side} sleep"]]
        parts = [shares(more, share) for share in SHARES.values()]
        table.row(side, quick, slow, slow.over(quick), *parts)
        if side == "ours":
            report.most("p99 of the latency added to 10 ms", parts[1].median, BAR_ADDED_MS, "ms")
            share = slow.over(quick).median
            report.least("rate with 10 ms handlers to the no-op rate", share, BAR_SHARE)
    most_left(report, [one.client_us for one in played["ours noop"]], alone)


def main() -> None:
    """Measure, print, and fail below the bars."""
    parser = arguments(__doc__)
    parser.add_argument("--idle-tasks", type=int, default=300, help="of each idle round")
    parser.add_argument("--tasks", type=int, default=10_000, help="of each busy round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    report = Report()
    waiting(report, asked)
    loaded(report, asked)
    sleeping(report, asked)
    report.close(asked)


if __name__ == "__main__":
    main()
