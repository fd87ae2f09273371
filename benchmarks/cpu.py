"""What a task costs the processors: the CPU time of the client and of the server, side by side.

Counted in the middle of each measurement, from the tenth to the ninetieth of a hundred tasks, so
that neither start-up nor end is in it. A handler that does nothing; one at a time, some, and many.

Run it:  python -m benchmarks.cpu
"""

import logging

from benchmarks.common import Report, arguments
from benchmarks.common.contest import SIDES, by_turns, load_for, measure, sample

AT_ONCE = (1, 16, 256)


def compare(report: Report, at_once: int, most: int, rounds: int) -> None:
    """Measure all sides, so many tasks at once."""
    found = by_turns([*SIDES], rounds, lambda side: measure(side, load_for(side, at_once, most)))
    columns = ("client", "server", "both", "ours : it, client", "ours : it, both")
    table = report.table(f"microseconds of CPU for a task, {at_once} at once", *columns)
    ours = found["ours"]
    for side in SIDES:
        client = sample(one.client_us for one in found[side])
        both = sample(one.client_us + one.server_us for one in found[side])
        our_client = sample(one.client_us for one in ours)
        our_both = sample(one.client_us + one.server_us for one in ours)
        server = sample(one.server_us for one in found[side])
        table.row(side, client, server, both, our_client.over(client), our_both.over(both))


def main() -> None:
    """Measure and print; there is no bar."""
    parser = arguments(__doc__)
    parser.add_argument("--at-once", nargs="+", type=int, default=list(AT_ONCE))
    parser.add_argument("--tasks", type=int, default=10_000, help="the most of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    logging.basicConfig(level=logging.CRITICAL)
    report = Report()
    for at_once in asked.at_once:
        compare(report, at_once, asked.tasks, asked.rounds)
    report.close(asked)


if __name__ == "__main__":
    main()
