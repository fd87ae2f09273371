"""What the layers do for a task, and where the time goes: counters, and a sampling profiler.

Counted for each side: frames and flushes, socket reads, steps and reschedules of trio, turns and
callbacks of asyncio, runs of the garbage collector, and Python calls (with a telemetry that does
nothing, too). Then a profile of this worker and of the plain loop, by layer and by function; a
profiled process is slower, so that only the shares tell, and they are those of the busy time.
Start-up and end are in it: the more tasks, the less.

Run it:  python -m benchmarks.layers
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from functools import partial

import trio

from benchmarks.common import ROOT, Report, arguments
from benchmarks.common.contest import Load, by_turns, command, fill, note, read_histories, sample
from trio_dagnats.local import Server

SIDES = ("ours", "asyncio", "trio-asyncio")
PROFILED = ("ours", "asyncio")
CALLING = ("ours", "ours-spans", "asyncio")
COUNTED = (
    "frames written",
    "flushes",
    "bytes written",
    "messages read",
    "socket reads",
    "bytes read",
    "trio tasks",
    "trio steps",
    "trio reschedules",
    "trio turns",
    "asyncio turns",
    "asyncio callbacks",
    "gc runs",
    "gc us",
)
TOP = 25
Found = dict[str, float]


def watch(mode: str, load: Load, side: str) -> Found:
    """Let a side run once and be looked at."""
    with Server() as server:
        trio.run(fill, server.url, load)
        python, flag, *rest = command(side, server, load)
        run = [python, flag, "benchmarks.sides.watched", mode, *rest]
        done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=ROOT)
        if done.returncode:
            sys.exit(f"{side} failed:\n{done.stderr}")
        stored = trio.run(read_histories, server.url)
    stored.check(load.tasks)
    note(f"{mode} {side}: {stored.rate:.0f} tasks/s")
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def counters(report: Report, load: Load, rounds: int) -> None:
    """Count what the layers do."""
    found = by_turns(SIDES, rounds, partial(watch, "count", load))
    table = report.table(f"for a task, {load.concurrency} at once", *SIDES)
    for what in COUNTED:
        cells = [sample(one.get(what, 0) / load.tasks for one in found[side]) for side in SIDES]
        table.row(what, *cells)


def calls(report: Report, load: Load, rounds: int) -> None:
    """Count Python calls, also with a telemetry that does nothing."""
    found = by_turns(CALLING, rounds, partial(watch, "calls", load))
    table = report.table(f"for a task, {load.concurrency} at once", *CALLING)
    for what in ("calls", "resumptions"):
        cells = [sample(one.get(what, 0) / load.tasks for one in found[side]) for side in CALLING]
        table.row(what, *cells)


def is_layer(name: str) -> bool:
    """Say whether a name of a profile is a layer's, else it is a function's."""
    return ": " not in name.removeprefix("ours: ")


def profiles(report: Report, load: Load, rounds: int) -> None:
    """Show where the time goes."""
    found = by_turns(PROFILED, rounds, partial(watch, "profile", load))
    for side in PROFILED:
        sums: Counter[str] = Counter()
        for one in found[side]:
            sums.update({name: round(share * 1000) for name, share in one.items()})
        names = [name for name, _ in sums.most_common()]
        layers = [name for name in names if is_layer(name)]
        functions = [name for name in names if name not in layers][:TOP]
        for title, rows in (("layer", layers), ("function", functions)):
            table = report.table(f"{side}: percent of the busy time, own, by {title}", "%")
            for name in rows:
                table.row(name, sample(one.get(name, 0.0) for one in found[side]))


def main() -> None:
    """Count, profile, and print; there is no bar."""
    parser = arguments(__doc__)
    parser.add_argument("--at-once", type=int, default=256)
    parser.add_argument("--work", choices=["noop", "sleep", "typed"], default="noop")
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked: argparse.Namespace = parser.parse_args()
    report, load = Report(), Load(tasks=asked.tasks, concurrency=asked.at_once, work=asked.work)
    counters(report, load, asked.rounds)
    calls(report, load, asked.rounds)
    profiles(report, load, asked.rounds)
    report.close(asked)


if __name__ == "__main__":
    main()
