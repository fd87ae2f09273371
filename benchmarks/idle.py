"""A worker that has nothing to do: its share of a core, its memory, what it costs the server.

Each side is up on a server of its own, with the buckets of an engine, at the same time as the
others, and is looked at after it has settled.

Run it:  python -m benchmarks.idle
"""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import trio

from benchmarks.common import Report, arguments, memory_mib
from benchmarks.common.contest import Load, fill, note, sample, server_pid, serving
from benchmarks.sides.telling import cpu_seconds
from trio_dagnats.local import Server

SIDES = ("ours", "asyncio", "trio-asyncio")
SETTLE = 2.0
BAR_PERCENT = 1.0
BAR_MIB = 60.0


@dataclass(frozen=True, slots=True)
class Rest:
    """What an idle side used: percent of a core, for itself and at its server; MiB."""

    percent: float
    server_percent: float
    mib: float


def watch(pids: Sequence[tuple[int, int]], seconds: float) -> list[Rest]:
    """Look at processes and their servers for a while."""
    before = [(cpu_seconds(own), cpu_seconds(server)) for own, server in pids]
    time.sleep(seconds)
    rests = []
    for (own, server), (own_before, server_before) in zip(pids, before, strict=True):
        share = (cpu_seconds(own) - own_before) / seconds * 100
        server_share = (cpu_seconds(server) - server_before) / seconds * 100
        rests.append(Rest(share, server_share, memory_mib(own)))
    return rests


def rest(seconds: float) -> dict[str, Rest]:
    """Let all sides be idle at the same time, each on a server of its own."""
    with ExitStack() as stack:
        pids = []
        for side in SIDES:
            server = stack.enter_context(Server())
            trio.run(fill, server.url, Load(tasks=0))
            load = Load(tasks=0)
            pids.append((stack.enter_context(serving(side, server, load)), server_pid(server)))
        time.sleep(SETTLE)
        found = dict(zip(SIDES, watch(pids, seconds), strict=True))
    note(f"idle for {seconds:g} s: {found['ours']}")
    return found


def main() -> None:
    """Watch, print, and fail below the bars."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    turns = [rest(asked.seconds) for _ in range(asked.rounds)]
    report = Report()
    table = report.table("an idle worker", "% of a core", "% at its server", "MiB")
    for side in SIDES:
        percent = sample(turn[side].percent for turn in turns)
        server = sample(turn[side].server_percent for turn in turns)
        mib = sample(turn[side].mib for turn in turns)
        table.row(side, percent, server, mib)
        if side == "ours":
            report.most("idle share of a core", percent.median, BAR_PERCENT, "%")
            report.most("memory of an idle worker", mib.median, BAR_MIB, "MiB")
    report.close(asked)


if __name__ == "__main__":
    main()
