"""A model of 1 KiB, and the messages around it, as a user of pydantic would write them."""

from typing import Literal

from pydantic import BaseModel

from benchmarks.sides.messages import Message, Step, addressed, now


class Line(BaseModel):
    """A line of an order."""

    sku: str
    quantity: int
    price: float


class Order(BaseModel):
    """What is reviewed: 1 KiB of JSON."""

    number: int
    customer: str
    lines: list[Line]
    note: str | None = None


class Dispatch(BaseModel):
    """A task with an order."""

    run_id: str
    step_id: str
    input: Order


class Reviewed(BaseModel):
    """The event that a review has ended."""

    type: Literal["step.completed"] = "step.completed"
    run_id: str
    step_id: str
    timestamp: str
    payload: Order


def example() -> dict[str, object]:
    """Return an order as it stands in the queue."""
    lines = [{"sku": f"SKU-{n:06}", "quantity": n, "price": n + 0.25} for n in range(1, 20)]
    return {"number": 4711, "customer": "Mrs Example", "lines": lines, "note": "by Friday"}


def read_order(data: bytes) -> Step:
    """Read a task with an order."""
    task = Dispatch.model_validate_json(data)
    return Step(task.run_id, task.step_id, task.input)


def reviewed(step: Step, output: object) -> Message:
    """Write that a review has ended well."""
    assert isinstance(output, Order)
    event = Reviewed(run_id=step.run_id, step_id=step.step_id, timestamp=now(), payload=output)
    return addressed(step, "step.completed", event.model_dump_json().encode())
