"""What a worker tells of its attempts: how each stands, and the tree of its tasks. Pure.

The answer to one question comes in parts, because a server takes only so many bytes in a message.
Each part is a JSON object::

    {"worker_id": "w", "part": 0, "more": true, "attempts": [...]}
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import final

from pydantic import TypeAdapter, ValidationError

from trio_dagnats.errors import WireError
from trio_dagnats.wire.text import compact, id_text

PART_MOST = 128 * 1024
"""Bytes of one part: a worker makes it in one turn of its event loop, some milliseconds."""
PART_FRAME = 1024
"""Bytes of a part that are not attempts, and of the message's head."""


@final
class Phase(StrEnum):
    """How an attempt stands."""

    STARTING = "starting"
    """Its handler has not been called yet."""
    WORKING = "working"
    WAITING = "waiting"
    """In a declared wait: a pause or a signal."""
    STORING = "storing"
    """Its outcome is on the way."""
    ENDING = "ending"
    """It was cancelled, and has not ended yet."""


@final
@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line of code on which a task stands.

    Attributes:
        file: the path of its file.
        line: its number.
        function: the qualified name of the function.
        text: the line itself, empty if the file cannot be read.
    """

    file: str
    line: int
    function: str
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line} in {self.function}: {self.text}".removesuffix(": ")


@final
@dataclass(frozen=True, slots=True)
class TaskTree:
    """A trio task of an attempt with its child tasks, or the thread of a plain ``def``.

    Attributes:
        name: the task's name.
        place: the innermost line of the user's code, None if it is not known.
        children: its child tasks; those without children that stand alike are one entry.
        alike: how many tasks this entry stands for.
        omitted: child tasks that were not looked at because there are too many.
    """

    name: str
    place: SourceLine | None = None
    children: tuple["TaskTree", ...] = ()
    alike: int = 1
    omitted: int = 0


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptTree:
    """One attempt in flight.

    Attributes:
        run_id: the run.
        step_id: the step.
        attempt: the attempt number, from 1.
        task_type: the task.
        deliveries: how often its message was delivered.
        age: seconds since it was delivered.
        lease_left: seconds until it is given up, unless its lease is renewed before.
        phase: how it stands.
        detail: what it waits for, or why it ends; else empty.
        tasks: its handler's task; None before and after the handler.
    """

    run_id: str
    step_id: str
    attempt: int
    task_type: str
    deliveries: int = 1
    age: float = 0.0
    lease_left: float = 0.0
    phase: Phase = Phase.WORKING
    detail: str = ""
    tasks: TaskTree | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of an answer; ``more`` says that another one follows."""

    worker_id: str
    part: int
    more: bool
    attempts: tuple[AttemptTree, ...]


_PART = TypeAdapter(Part)
_write = TypeAdapter(AttemptTree).dump_json


def parts(worker_id: str, attempts: Iterable[AttemptTree], max_payload: int) -> Iterator[bytes]:
    """Write an answer in parts that fit; at least one. Takes one attempt after the other.

    An attempt that would fill more than a part of its own goes without its tasks.
    """
    room = min(PART_MOST, max_payload) - PART_FRAME
    number, held, size = 0, list[bytes](), 0
    for attempt in attempts:
        raw = _write(attempt)
        if len(raw) > room:
            raw = _write(replace(attempt, tasks=None))
        if held and size + len(raw) >= room:
            yield _part(worker_id, number, held, more=True)
            number, held, size = number + 1, [], 0
        held.append(raw)
        size += len(raw) + 1
    yield _part(worker_id, number, held, more=False)


def read_part(raw: bytes) -> Part:
    """Read a part.

    Raises:
        WireError: it is none.
    """
    try:
        return _PART.validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise WireError(f"not a part of a worker's tree: {first['loc']}: {first['msg']}") from error


def lines(attempt: AttemptTree) -> list[str]:
    """Draw an attempt and the tree of its tasks."""
    detail = f" ({attempt.detail})" if attempt.detail else ""
    again = f", delivery {attempt.deliveries}" if attempt.deliveries > 1 else ""
    head = (
        f"{attempt.run_id}.{id_text(attempt.step_id)} attempt {attempt.attempt}{again} of "
        f"{attempt.task_type}: {attempt.phase}{detail}, {attempt.age:.1f} s old, lease "
        f"{attempt.lease_left:.1f} s"
    )
    return [head, *(_draw([attempt.tasks]) if attempt.tasks else ())]


def _draw(tasks: Sequence[TaskTree], omitted: int = 0, indent: str = "") -> Iterator[str]:
    last = len(tasks) - (not omitted)
    for index, task in enumerate(tasks):
        alike = f" x{task.alike}" if task.alike > 1 else ""
        place = f"  {task.place}" if task.place else ""
        yield f"{indent}{'└─ ' if index == last else '├─ '}{task.name}{alike}{place}"
        below = indent + ("   " if index == last else "│  ")
        yield from _draw(task.children, task.omitted, below)
    if omitted:
        yield f"{indent}└─ and {omitted} more"


def _part(worker_id: str, number: int, attempts: Sequence[bytes], *, more: bool) -> bytes:
    head = compact({"worker_id": worker_id, "part": number, "more": more})
    return b'%b,"attempts":[%b]}' % (head[:-1], b",".join(attempts))
