"""From the start of a process to its first completion, and the time that its imports take.

Each side finds one task in the queue; its completion's time is the server's. The imports are timed
inside a process that does nothing else: what a program names first, and with what is loaded when
the worker connects.

Run it:  python -m benchmarks.startup
"""

import logging
import subprocess
import sys
import time

import trio

from benchmarks.common import ROOT, Report, arguments
from benchmarks.common.contest import Load, by_turns, command, fill, note, read_histories, sample
from trio_dagnats.local import Server

SIDES = ("ours", "asyncio", "trio-asyncio")
IMPORTS = {
    "ours": "import trio, trio_dagnats; trio_dagnats.Worker",
    "ours, connected": "import trio\n"
    "import trio_dagnats.transport.nats_py.connection; trio_dagnats.Worker",
    "trio": "import trio",
    "asyncio": "import asyncio, json, nats",
    # On Python 3.14 it does not import by itself.
    "trio-asyncio": "import json, nats, trio, "
    + ("trio_asyncio" if sys.version_info < (3, 14) else "trio_dagnats.transport.nats"),
    "nothing": "pass",
}
TIMED = "import time; b = time.perf_counter(); {}; print((time.perf_counter() - b) * 1000)"


def first_completion(side: str) -> float:
    """Return the milliseconds from the start of a side's process to its first completion."""
    load = Load(tasks=1)
    with Server() as server:
        trio.run(fill, server.url, load)
        run = command(side, server, load)
        begun = time.time_ns()
        subprocess.run(run, capture_output=True, check=True, cwd=ROOT)
        stored = trio.run(read_histories, server.url)
    stored.check(1)
    found = (stored.times_ns["r0"][-1] - begun) / 1e6
    note(f"{side}: {found:.0f} ms to the first completion")
    return found


def import_time(what: str) -> float:
    """Return the milliseconds that imports take in a new process."""
    run = [sys.executable, "-c", TIMED.format(IMPORTS[what])]
    return float(subprocess.run(run, capture_output=True, text=True, check=True, cwd=ROOT).stdout)


def process_time(_: str) -> float:
    """Return the milliseconds of a process that does nothing."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return (time.perf_counter() - begun) * 1000


def main() -> None:
    """Measure and print; there is no bar."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    report = Report()
    for side in SIDES:
        first_completion(side)  # compiles what is not yet compiled
    firsts = by_turns(SIDES, asked.rounds, first_completion)
    table = report.table("ms from process start to the first stored completion", "ms", "ours : it")
    ours = sample(firsts["ours"])
    for side in SIDES:
        table.row(side, sample(firsts[side]), ours.over(sample(firsts[side])))
    imported = by_turns([*IMPORTS], asked.rounds, import_time)
    table = report.table("ms that imports take in a new process", "ms")
    for what, times in imported.items():
        table.row(what, sample(times))
    bare = by_turns(["python"], asked.rounds, process_time)
    table.row("(a whole process that imports nothing)", sample(bare["python"]))
    report.close(asked)


if __name__ == "__main__":
    main()
