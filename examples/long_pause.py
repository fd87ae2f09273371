"""A long pause with a checkpoint: the worker goes, another comes, and the pause goes on.

``ctx.pause`` keeps the task but holds no slot. When its worker drains, the task is handed back with
the rest of the delay; on the next worker the handler starts from its top, with its checkpoint, and
the same call waits only for what is left.

Run it:  python examples/long_pause.py
It prints::

    first worker: ['worked', 'pausing']
    {'pages': 42}
    second worker: ['pausing']
    the pause was kept: True
"""

import json

import trio
from here import engine

from trio_dagnats import Client, TaskContext, Worker, Workflow


def make_worker(url: str, seen: list[str]) -> Worker:
    """Make a worker; ``seen`` tells what its handler did."""
    worker = Worker(url)

    @worker.handle("nap")
    async def nap(ctx: TaskContext) -> dict[str, int]:
        found = await ctx.load_checkpoint()
        done = json.loads(found)["pages"] if found else 0
        if not done:
            done = 40  # the expensive half, done once
            seen.append("worked")
        seen.append("pausing")
        await ctx.pause(2.0, {"pages": done})
        return {"pages": done + 2}

    return worker


async def main() -> None:
    """Pause under one worker, finish under another."""
    async with engine() as url, Client(url) as client:
        workflow = Workflow("nap")
        workflow.step("nap")
        await client.register(workflow)

        first: list[str] = []
        begun = trio.current_time()
        async with make_worker(url, first):
            run = await client.start("nap")
            while "pausing" not in first:
                await trio.sleep(0.05)
            await trio.sleep(0.5)
        print("first worker:", first)

        second: list[str] = []
        async with make_worker(url, second):
            print(await run.output(timeout=30))
        print("second worker:", second)
        print("the pause was kept:", 2.0 <= trio.current_time() - begun < 10.0)


if __name__ == "__main__":
    trio.run(main)
