"""Tasks per second: this worker beside what a user would write instead, in one run.

Sides: this worker (``ours``; ``ours-public`` on nats-py's public calls alone; ``ours-pipelined``
with ``pipeline_started=True``), a plain asyncio loop on nats-py, the same on uvloop, the
straightforward trio-asyncio worker. Work: a handler that does nothing, one that awaits 10 ms, a
typed one with a model of 1 KiB in and out. Every side publishes ``step.started`` and
``step.completed`` with acknowledgement, in this order around the handler, then acknowledges the
task. Few at once get fewer tasks, and so does the slowest side.

Run it:  python -m benchmarks.throughput  [--works noop]  [--at-once 1 256]  [--sides ours asyncio]
"""

import argparse
import logging
from functools import partial

from benchmarks.common import Report, Sample, arguments
from benchmarks.common.contest import SIDES, Measured, by_turns, load_for, measure, sample

WORKS = ("noop", "sleep", "typed")
AT_ONCE = (1, 16, 64, 256, 1000)
BARS = {
    (256, "asyncio"): 2.5,
    (256, "uvloop"): 2.2,
    (256, "trio-asyncio"): 6.0,
    (1, "asyncio"): 0.95,
}
"""What the ratio must be for a handler that does nothing; one at a time, the latency decides."""


def rates(found: list[Measured]) -> Sample:
    """Return the rates of all rounds."""
    return sample(one.rate for one in found)


def turn(work: str, at_once: int, most: int, side: str) -> Measured:
    """Let a side do its share of the work once."""
    return measure(side, load_for(side, at_once, most, work))


def compare(asked: argparse.Namespace, report: Report) -> None:
    """Let the sides compete in everything that was asked for."""
    others = [side for side in asked.sides if side != "ours"]
    for work in asked.works:
        ratios = [f"ours : {side}" for side in others]
        table = report.table(f"{work}: tasks/s, by tasks at once", *asked.sides, *ratios)
        for at_once in asked.at_once:
            once = partial(turn, work, at_once, asked.tasks)
            found = by_turns(asked.sides, asked.rounds, once)
            per_side = {side: rates(found[side]) for side in asked.sides}
            versus = {side: per_side["ours"].over(per_side[side]) for side in others}
            table.row(str(at_once), *per_side.values(), *versus.values())
            for side in others if work == "noop" else ():
                if (at_once, side) in BARS:
                    what = f"ratio to {side} at {at_once} at once"
                    report.least(what, versus[side].median, BARS[at_once, side])


def main() -> None:
    """Compare, print, and fail below the bars."""
    parser = arguments(__doc__)
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--at-once", nargs="+", type=int, default=list(AT_ONCE))
    parser.add_argument("--sides", nargs="+", choices=[*SIDES], default=[*SIDES])
    parser.add_argument("--tasks", type=int, default=20_000, help="the most of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    if "ours" not in asked.sides:
        parser.error("the others are compared with ours")
    report = Report()
    compare(asked, report)
    report.close(asked)


if __name__ == "__main__":
    main()
