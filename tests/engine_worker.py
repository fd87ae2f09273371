"""A worker process for the tests of engines: ``engine_worker.py URL TASK loop|hour``."""

import sys

import trio

from trio_dagnats import Continue, TaskContext, Worker

ITERATIONS = 10
ACK_WAIT = 2.0
"""Seconds after which the tasks of a killed worker go to another one."""
WORK = 0.05


async def loop(ctx: TaskContext, seen: list[int]) -> Continue[list[int]] | list[int]:
    """Collect the numbers of the iterations."""
    await trio.sleep(WORK)
    return seen if len(seen) == ITERATIONS else Continue([*seen, ctx.iteration])


async def hour(ctx: TaskContext) -> None:
    """Note a half, and never come to the other one."""
    await ctx.checkpoint("half")
    await trio.sleep(3600)


def main() -> None:
    """Serve until SIGTERM."""
    url, task, kind = sys.argv[1:]
    worker = Worker(url, grace=0.2)
    if kind == "loop":
        worker.agent_loop(task, loop, ack_wait=ACK_WAIT)
    else:
        worker.handle(task, hour)
    trio.run(worker.start)


if __name__ == "__main__":
    main()
