"""Idempotency keys: where in the input a workflow looks for them (contract 10.1). Pure.

The engine looks for a key in the input, so one that is given to ``start`` is put there. The
caller's own input is never changed: the objects along the path are copies.
"""

from trio_dagnats.errors import UsageError
from trio_dagnats.wire.definitions.workflow import WorkflowDef


def with_key(definition: WorkflowDef, given: object, key: str) -> object:
    """Return the input with the key at the workflow's path.

    Raises:
        UsageError: the workflow has no path, the input has no place for it, or another key.
    """
    path = definition.idempotency_key
    if not path:
        raise UsageError(
            f"workflow {definition.name!r} has no idempotency_key path, so a key would have no "
            "effect; add one to the workflow, or leave the key out"
        )
    *parents, last = path.removeprefix("input.").split(".")
    copy: dict[str, object] = _copied(given, path)
    place = copy
    for name in parents:
        place[name] = place = _copied(place.get(name), path)
    if place.get(last, key) != key:
        raise UsageError(f"the input has {place[last]!r} at {path!r}, not the key {key!r}")
    place[last] = key
    return copy


def _copied(value: object, path: str) -> dict[str, object]:
    """Return a copy of an object on the way to the key; nothing becomes an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"the input must be an object with a place for the key at {path!r}")
    return dict(value)
