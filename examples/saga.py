"""Saga: when a later step fails, the completed ones are undone, the last one first.

``compensate=`` names the step that undoes a step; it runs only for that, and its input tells what
failed and what the step had given. The run ends as ``compensated``.

Run it:  python examples/saga.py
It prints::

    booked the flight
    booked the hotel
    cancelled the hotel
    cancelled the flight
    compensated
"""

import trio
from here import engine

from trio_dagnats import Client, Fatal, TaskContext, Worker, Workflow


async def book(ctx: TaskContext) -> str:
    """Book something; the step says what."""
    print("booked the", ctx.step_id)
    return f"{ctx.step_id} 7"


async def undo(ctx: TaskContext) -> None:
    """Cancel what the step that this one undoes has booked."""
    print("cancelled the", ctx.step_id.removeprefix("undo-"))


async def pay(ctx: TaskContext) -> None:
    """Fail, for good."""
    raise Fatal("no money")


async def main() -> None:
    """Book a journey that nobody can pay."""
    async with engine() as url, Client(url) as client:
        worker = Worker(url)
        worker.handle("book", book)
        worker.handle("undo", undo)
        worker.handle("pay", pay)

        workflow = Workflow("journey")
        flight = workflow.step("flight", "book", compensate="undo-flight")
        hotel = workflow.step("hotel", "book", after=flight, compensate="undo-hotel")
        workflow.step("pay", after=hotel)
        workflow.step("undo-flight", "undo")
        workflow.step("undo-hotel", "undo")

        async with worker:
            await client.register(workflow)
            run = await client.start("journey")
            ended = await run.wait(timeout=30)
            print(ended.status)


if __name__ == "__main__":
    trio.run(main)
