"""Drain: a handler hears that its worker is about to go, and stores how far it has come.

``ctx.draining`` is an event. A handler that does nothing about it has ``grace`` seconds; then it is
cancelled and handed back. This one checkpoints, and the next worker goes on from there.

Run it:  python examples/drain.py
It prints::

    first worker: pages 0 to 2
    handed back with a checkpoint: True
    second worker: pages 3 to 5
    {'pages': 6}
"""

import trio
from here import engine

from trio_dagnats import Client, TaskContext, Worker, Workflow


def make_worker(url: str, read: list[int], pages: int) -> Worker:
    """Make a worker that can read so many pages before it has to wait for something."""
    worker = Worker(url, grace=1.0)

    @worker.handle("read")
    async def handler(ctx: TaskContext) -> dict[str, int]:
        page = int(await ctx.load_checkpoint() or b"0")
        while page < 6:
            if len(read) == pages:
                await ctx.draining.wait()
                await ctx.checkpoint(page)
                await trio.sleep_forever()  # until the grace is over
            read.append(page)
            page += 1
        return {"pages": page}

    return worker


async def main() -> None:
    """Drain one worker in the middle, finish with another."""
    async with engine() as url, Client(url) as client:
        workflow = Workflow("read")
        workflow.step("read")
        await client.register(workflow)

        read: list[int] = []
        first = make_worker(url, read, pages=3)
        async with first:
            run = await client.start("read")
            while len(read) < 3:
                await trio.sleep(0.05)
        print("first worker: pages", read[0], "to", read[-1])
        (line,) = first.ledger
        print(line.end, "with a checkpoint:", line.checkpointed)

        read = []
        async with make_worker(url, read, pages=6):
            output = await run.output(timeout=30)
        print("second worker: pages", read[0], "to", read[-1])
        print(output)


if __name__ == "__main__":
    trio.run(main)
