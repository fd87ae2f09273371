"""The messages of a task, as a program without this package would read and write them."""

import json
import time
from collections.abc import Callable
from typing import NamedTuple

TASK_QUEUES = "TASK_QUEUES"
MAX_ACK_PENDING = 100_000
"""How many tasks of a type may be in flight, over all its workers."""
Message = tuple[str, bytes, dict[str, str]]
"""Subject, body and headers."""


class Step(NamedTuple):
    """A task of the queue."""

    run_id: str
    step_id: str
    input: object


class Codec(NamedTuple):
    """How a task is read, and how its end is written."""

    read: Callable[[bytes], Step]
    completed: Callable[[Step, object], Message]


def now() -> str:
    """Return the time as the engine writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def read(data: bytes) -> Step:
    """Read a task."""
    task = json.loads(data)
    return Step(task["run_id"], task["step_id"], task["input"])


def started(step: Step) -> Message:
    """Write that a step has started."""
    event = {"run_id": step.run_id, "step_id": step.step_id, "timestamp": now()}
    body = json.dumps({"type": "step.started", **event, "attempt_number": 1}).encode()
    return addressed(step, "step.started.1", body)


def completed(step: Step, output: object) -> Message:
    """Write that a step has ended well."""
    event = {"run_id": step.run_id, "step_id": step.step_id, "timestamp": now()}
    body = json.dumps({"type": "step.completed", **event, "payload": output}).encode()
    return addressed(step, "step.completed", body)


def addressed(step: Step, kind: str, body: bytes) -> Message:
    """Add the subject, and the id by which the server knows a message again."""
    headers = {"Nats-Msg-Id": f"{step.run_id}.{step.step_id}.{kind}"}
    return f"history.{step.run_id}", body, headers


def codec(work: str) -> Codec:
    """Return how the tasks of a kind of work are read and written."""
    if work != "typed":
        return Codec(read, completed)
    from benchmarks.sides.orders import read_order, reviewed  # noqa: PLC0415 - pydantic

    return Codec(read_order, reviewed)
