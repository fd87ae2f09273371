"""Wait for an event: a run goes on when something happens elsewhere, to its own order only.

The engine waits, no worker is needed meanwhile. The event's field ``order.id`` must equal the run's
input ``order``; after the timeout the step's output would be ``{"timeout": true}``.

Run it:  python examples/wait_for_event.py
It prints::

    waiting
    shipped order 7, paid by card
"""

import trio
from here import engine
from pydantic import BaseModel

from trio_dagnats import Client, TaskContext, Worker, Workflow


class Order(BaseModel):
    """An order."""

    id: int


class Payment(BaseModel):
    """The event that is waited for."""

    order: Order
    by: str


async def ship(ctx: TaskContext, payment: Payment) -> str:
    """Get the event as input."""
    return f"shipped order {payment.order.id}, paid by {payment.by}"


async def main() -> None:
    """Pay somebody else's order, then ours."""
    async with engine() as url, Client(url) as client:
        worker = Worker(url)
        worker.handle_typed("ship", ship)

        workflow = Workflow("order")
        paid = workflow.wait_for_event(
            "paid", "payment", where="order.id", equals="input.order", timeout=3600
        )
        workflow.step("ship", after=paid)

        async with worker:
            await client.register(workflow)
            run = await client.start("order", {"order": 7})
            async for event in run.events():
                if event.type == "step.wait.started":
                    break
            print("waiting")
            await trio.sleep(0.5)  # a DagNats engine says so a moment before it listens
            await client.publish_event("payment", {"order": {"id": 8}, "by": "cheque"})
            await client.publish_event("payment", {"order": {"id": 7}, "by": "card"})
            print(await run.output(timeout=30))


if __name__ == "__main__":
    trio.run(main)
