"""Retries and fatal errors: who decides whether a step runs again.

A plain exception leaves it to the engine's retry policy. ``Retryable`` hands the task back for the
same attempt, without touching that budget. ``Fatal`` ends the run whatever the policy says.

Run it:  python examples/retry_and_fatal.py
It prints::

    charge: charged at attempt 3
    warm_up: attempt 1, delivery 2
    refuse: the card is stolen
"""

import trio
from here import engine

from trio_dagnats import Client, Fatal, Retry, Retryable, TaskContext, Worker, Workflow
from trio_dagnats.errors import RunFailed


async def charge(ctx: TaskContext) -> str:
    """Charge a card that works at the third attempt."""
    if ctx.attempt < 3:
        raise ConnectionError(f"attempt {ctx.attempt}: the bank does not answer")
    return f"charged at attempt {ctx.attempt}"


async def warm_up(ctx: TaskContext) -> str:
    """Wait for a model that is loaded at the second delivery."""
    if ctx.deliveries < 2:
        raise Retryable("the model is still loading", delay=0.2)
    return f"attempt {ctx.attempt}, delivery {ctx.deliveries}"


async def refuse(ctx: TaskContext) -> None:
    """Fail for good."""
    raise Fatal("the card is stolen")


async def main() -> None:
    """Run all three."""
    async with engine() as url, Client(url) as client:
        worker = Worker(url)
        worker.handle("charge", charge)
        worker.handle("warm_up", warm_up)
        worker.handle("refuse", refuse)

        async with worker:
            for task in ("charge", "warm_up", "refuse"):
                workflow = Workflow(task)
                workflow.step(task, retry=Retry(5, delay=0.1, growth="fixed"))
                await client.register(workflow)
                run = await client.start(task)
                try:
                    print(f"{task}:", await run.output(timeout=30))
                except RunFailed as failed:
                    print(f"{task}:", str(failed).rpartition(": ")[2])


if __name__ == "__main__":
    trio.run(main)
