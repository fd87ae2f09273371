"""Map: a step that runs once for each item of a list, on all workers at once.

The output of ``list`` decides how many there are; ``add`` gets the results in the items' order.

Run it:  python examples/map_items.py
It prints::

    {'words': 8}
"""

import trio
from here import engine

from trio_dagnats import Client, TaskContext, Worker, Workflow


async def list_texts(ctx: TaskContext, texts: list[str]) -> list[str]:
    """Give the items."""
    return [text for text in texts if text]


async def count(ctx: TaskContext, text: str) -> int:
    """Count the words of one item."""
    return len(text.split())


async def add(ctx: TaskContext, counts: list[int]) -> dict[str, int]:
    """Get all results, in order."""
    return {"words": sum(counts)}


async def main() -> None:
    """Count the words of three texts."""
    async with engine() as url, Client(url) as client:
        worker = Worker(url)
        worker.handle_typed("list", list_texts)
        worker.handle_typed("count", count)
        worker.handle_typed("add", add)

        workflow = Workflow("count-words")
        counts = workflow.map("count", over=workflow.step("list"), max_items=100)
        workflow.step("add", after=counts)

        async with worker:
            await client.register(workflow)
            run = await client.start("count-words", ["to be", "", "or not", "that is the question"])
            print(await run.output(timeout=30))


if __name__ == "__main__":
    trio.run(main)
