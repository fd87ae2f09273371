"""Hello: a handler, a workflow of one step, and its result.

Run it:  python examples/hello.py
It prints::

    {'hello': '"world"'}
"""

import trio
from here import engine

from trio_dagnats import Client, TaskContext, Worker, Workflow


async def hello(ctx: TaskContext) -> dict[str, str]:
    """Get raw JSON; what is returned completes the step."""
    return {"hello": ctx.input.decode()}


async def main() -> None:
    """Serve the handler, run the workflow once."""
    async with engine() as url, Client(url) as client:
        worker = Worker(url)
        worker.handle("hello", hello)

        workflow = Workflow("hello")
        workflow.step("hello")

        async with worker:
            await client.register(workflow)
            run = await client.start("hello", "world")
            print(await run.output(timeout=30))


if __name__ == "__main__":
    trio.run(main)
