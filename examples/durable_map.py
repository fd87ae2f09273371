"""Durable map: many items in one handler, and a second try that runs only what is not finished.

``ctx.map`` runs a few items at a time, stores each result, and returns them all in order. Here the
network fails in the middle; the second try asks for the missing pages only.

Run it:  python examples/durable_map.py
It prints::

    {'tries': 2, 'words': 2190}
    asked again for at most five: True
"""

import trio
from here import engine
from pydantic import BaseModel

from trio_dagnats import Client, Retryable, TaskContext, Worker, Workflow


class Page(BaseModel):
    """A page that was read."""

    number: int
    words: int


asked: list[int] = []
"""The pages that were asked for, over both tries."""


async def fetch(number: int) -> Page:
    """Read a page; the network fails once."""
    asked.append(number)
    await trio.sleep(0.01)
    if number == 12 and asked.count(12) == 1:
        raise Retryable("the network is gone", delay=0.2)
    return Page(number=number, words=100 + number)


async def read(ctx: TaskContext) -> dict[str, int]:
    """Read twenty pages, five at a time."""
    pages = await ctx.map(fetch, range(20), limit=5)
    return {"tries": ctx.deliveries, "words": sum(page.words for page in pages)}


async def main() -> None:
    """Run it through one failure."""
    async with engine() as url, Client(url) as client:
        worker = Worker(url)
        worker.handle("read", read)

        workflow = Workflow("read")
        workflow.step("read")

        async with worker:
            await client.register(workflow)
            run = await client.start("read")
            print(await run.output(timeout=30))
            print("asked again for at most five:", len(asked) <= 20 + 5)


if __name__ == "__main__":
    trio.run(main)
