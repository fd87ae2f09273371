"""Rate limits: say when to come back, and the engine does.

``RateLimited(err, after)`` fails the attempt with a delay of its own; the step needs a retry
policy, which bounds how often.

Run it:  python examples/rate_limit.py
It prints::

    an answer
    came back after the delay: True
"""

import trio
from here import engine

from trio_dagnats import Client, RateLimited, Retry, TaskContext, Worker, Workflow


async def ask_model(ctx: TaskContext) -> str:
    """Ask a model that has had enough of us the first time."""
    if ctx.attempt == 1:
        raise RateLimited("429 Too Many Requests", after=0.5)
    return "an answer"


async def main() -> None:
    """Run it once, and show that the delay was kept."""
    async with engine() as url, Client(url) as client:
        worker = Worker(url)
        worker.handle("ask_model", ask_model)

        workflow = Workflow("ask-model")
        workflow.step("ask_model", retry=Retry(3))

        async with worker:
            await client.register(workflow)
            begun = trio.current_time()
            run = await client.start("ask-model")
            print(await run.output(timeout=30))
            print("came back after the delay:", trio.current_time() - begun >= 0.5)


if __name__ == "__main__":
    trio.run(main)
