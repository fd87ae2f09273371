"""Cancel: a run that is cancelled ends what its handler started, at once.

The handler runs in a cancel scope. Its nurseries, tasks and open connections end with it, whatever
they are waiting for, and ``finally`` blocks run. Nothing polls.

Run it:  python examples/cancel.py
It prints::

    in the handler: the run was cancelled
    the run: cancelled
    left behind: []
"""

import trio
from here import engine

from trio_dagnats import Client, TaskContext, Worker, Workflow

alive: list[str] = []
ended = trio.Event()


async def crawl(name: str) -> None:
    """Go on for an hour."""
    alive.append(name)
    try:
        await trio.sleep(3600)
    finally:
        alive.remove(name)


async def work(ctx: TaskContext) -> None:
    """Do three things at once."""
    try:
        async with trio.open_nursery() as nursery:
            for name in ("pages", "images", "links"):
                nursery.start_soon(crawl, name)
    finally:
        assert ctx.cancel_reason is not None
        print("in the handler:", ctx.cancel_reason.value)
        ended.set()


async def main() -> None:
    """Cancel a run in the middle of its work."""
    async with engine() as url, Client(url) as client:
        worker = Worker(url)
        worker.handle("work", work)

        workflow = Workflow("work")
        workflow.step("work")

        async with worker:
            await client.register(workflow)
            run = await client.start("work")
            while len(alive) < 3:
                await trio.sleep(0.05)
            await run.cancel()
            await ended.wait()
            print("the run:", (await run.wait(timeout=30)).status)
            print("left behind:", alive)


if __name__ == "__main__":
    trio.run(main)
