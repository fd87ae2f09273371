"""What registering a definition would change about the one that is stored. Pure.

Bytes tell nothing: an engine decodes what it is sent and stores its own writing of it, with other
keys first and without what is empty. So both sides are compared as this package writes them.

Called by the client before it registers, and by the command line, which shows it. It matters
because the DagNats engine looks a definition up by name each time: changing one changes runs that
go on (contract H28).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, final

from pydantic_core import from_json

from trio_dagnats.errors import UsageError
from trio_dagnats.wire.definitions.workflow import WorkflowDef

STEPS = "steps"


@final
class Absent(Enum):
    """The type of a value that is not there; JSON's null is a value."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


@final
@dataclass(frozen=True, slots=True)
class Difference:
    """One place where two definitions differ.

    Attributes:
        path: keys joined by dots; steps go by their ids, so that one more at the top does not
            change all below it: ``steps.greet.timeout``. ``steps`` alone is their order.
        stored: the value that is stored; durations are in nanoseconds.
        new: the value after registering; ``ABSENT`` where there is none, as in ``stored``.
    """

    path: str
    stored: object
    new: object


def differences(stored: bytes, definition: WorkflowDef) -> list[Difference]:
    """Compare a definition with one that an engine has stored; empty if they mean the same.

    A stored one that this package cannot read, as one for a newer engine, is compared key by key.

    Args:
        stored: what the bucket of definitions has under the name.
        definition: what would be registered.
    """
    try:
        before = _written(WorkflowDef.read(stored))
    except UsageError:
        before = _taken_apart(stored)
    after = _written(WorkflowDef.read(definition.to_wire()))
    return [
        *_differing("", before.fields, after.fields),
        *_differing(STEPS, before.steps, after.steps),
        *_reordered(before.steps, after.steps),
    ]


class _Form(NamedTuple):
    """A definition as it is compared: its fields, and its steps by their ids."""

    fields: dict[str, object]
    steps: dict[str, object]


def _written(definition: WorkflowDef) -> _Form:
    """Write a definition with its own ``aux_steps``, not with those that it ought to have.

    A stored one without them runs its failure handlers as ordinary steps: registering mends it.
    """
    fields = {**definition.to_wire(), "aux_steps": definition.aux_steps or {}}
    del fields[STEPS]
    return _Form(fields, {step.id: step.to_wire() for step in definition.steps})


def _taken_apart(stored: bytes) -> _Form:
    """Return what cannot be read as a definition, as far as it looks like one."""
    try:
        found = from_json(stored)
    except ValueError:
        found = None
    fields = {"aux_steps": {}, **found} if isinstance(found, dict) else {}
    steps = fields.pop(STEPS, None)
    listed = steps if isinstance(steps, list) else []
    return _Form(fields, {str(s.get("id")): s for s in listed if isinstance(s, dict)})


def _reordered(stored: dict[str, object], new: dict[str, object]) -> Iterator[Difference]:
    """Compare the order of the steps that both have."""
    before, after = [i for i in stored if i in new], [i for i in new if i in stored]
    if before != after:
        yield Difference(STEPS, before, after)


def _differing(path: str, stored: object, new: object) -> Iterator[Difference]:
    if isinstance(stored, dict) and isinstance(new, dict):
        for key in (*stored, *(key for key in new if key not in stored)):
            inner = f"{path}.{key}" if path else key
            yield from _differing(inner, stored.get(key, ABSENT), new.get(key, ABSENT))
    elif not _same(stored, new):
        yield Difference(path, stored, new)


def _same(one: object, other: object) -> bool:
    """Compare as JSON does: 2 is 2.0, and true is not 1, however deep."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[k], other[k]) for k in one)
    return isinstance(one, bool) is isinstance(other, bool) and one == other
