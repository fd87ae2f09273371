"""Graceful shutdown: short work ends, long work is handed back at once to another worker.

Leaving the block drains: nothing new is taken, running handlers have ``grace`` seconds, what is
left is cancelled and handed back. The ledger tells what became of each attempt.

Run it:  python examples/graceful_shutdown.py
It prints::

    completed
    handed back
    short
    long
"""

import json

import trio
from here import engine

from trio_dagnats import Client, TaskContext, Worker, Workflow


def make_worker(url: str, running: set[str], seconds: float) -> Worker:
    """Make a worker whose long handler takes so many seconds."""
    worker = Worker(url, grace=1.0)

    @worker.handle("work")
    async def work(ctx: TaskContext) -> str:
        name: str = json.loads(ctx.input)
        running.add(name)
        await trio.sleep(0.5 if name == "short" else seconds)
        return name

    return worker


async def main() -> None:
    """Drain one worker under two runs, finish with another."""
    async with engine() as url, Client(url) as client:
        workflow = Workflow("work")
        workflow.step("work")
        await client.register(workflow)

        running: set[str] = set()
        first = make_worker(url, running, 3600)
        async with first:
            runs = [await client.start("work", name) for name in ("short", "long")]
            while len(running) < 2:
                await trio.sleep(0.05)
        for line in sorted(first.ledger, key=lambda line: line.end):
            print(line.end)

        async with make_worker(url, running, 0.1):
            for run in runs:
                print(await run.output(timeout=30))


if __name__ == "__main__":
    trio.run(main)
