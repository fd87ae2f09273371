"""Human approval by signal: a handler waits, holding no slot, until somebody says yes.

The wait is a scope like any other: cancelled with its run, handed back when the worker drains.

Run it:  python examples/approval.py
It prints::

    waiting: running
    {'published': '"a good story"', 'by': 'Ada'}
"""

import json

import trio
from here import engine

from trio_dagnats import Client, TaskContext, Worker, Workflow


async def publish(ctx: TaskContext) -> dict[str, str]:
    """Wait for the editor, for an hour at the most."""
    approval = json.loads(await ctx.wait_for_signal("approval", timeout=3600))
    return {"published": ctx.input.decode(), "by": approval["editor"]}


async def main() -> None:
    """Start a run, and approve it."""
    async with engine() as url, Client(url) as client:
        worker = Worker(url)
        worker.handle("publish", publish)

        workflow = Workflow("publish")
        workflow.step("publish")

        async with worker:
            await client.register(workflow)
            run = await client.start("publish", "a good story")
            print("waiting:", await run.status())
            await run.signal("approval", {"editor": "Ada"})
            print(await run.output(timeout=30))


if __name__ == "__main__":
    trio.run(main)
