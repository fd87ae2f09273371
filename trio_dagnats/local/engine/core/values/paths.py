"""Dot paths into JSON, and values as the DagNats engine compares them. Pure.

Where the engine needs a key or a comparison in several places (locks, rates, idempotency keys,
events) it must come out the same in each, or one run would wait for another's key. So both stand
here, once.
"""

import hashlib
import json
import re

from pydantic_core import from_json

from trio_dagnats.local.engine.core.state import RunState
from trio_dagnats.wire.definitions.configs import Match, PriorityConfig

_LEGAL = re.compile(r"[-_a-zA-Z0-9]{1,100}")


def key_part(text: str) -> str:
    """Return a text as a part of a bucket's key; what is not legal there stands as its hash.

    Hashing is one-way and that is enough: keys are looked up, never read back. The ``=`` in
    front keeps a hash apart from every text that stands as itself, which cannot contain one.
    """
    if _LEGAL.fullmatch(text):
        return text
    return f"={hashlib.sha256(text.encode()).hexdigest()[:32]}"


def find(path: str, raw: bytes) -> tuple[bool, object]:
    """Say whether there is something at a dot path of a JSON text, and return it."""
    return walk(path, from_json(raw)) if raw else (False, None)


def walk(path: str, value: object) -> tuple[bool, object]:
    """Say whether there is something at a dot path of a value, and return it.

    Keys of objects only: a number in a path is a key like any other, no place in a list.
    """
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            return False, None
        value = value[part]
    return True, value


def printed(value: object) -> str:
    """Write a value for comparing: the number 5 and the text "5" are the same."""
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def wanted(match: Match, state: RunState) -> tuple[bool, object]:
    """Say whether the run has the value that a match compares with, and return it.

    ``match.right`` is ``input.<path>`` or ``step.<step>.output.<path>``. A step that has no
    output has nothing at any path.
    """
    head, _, rest = match.right.partition(".")
    if head == "input":
        return walk(rest, state.run.input)
    step_id, _, path = rest.partition(".output.")
    found = state.run.steps.get(step_id)
    return find(path, found.raw_output()) if found is not None else (False, None)


def offset_of(priority: PriorityConfig | None, given: object) -> int:
    """Return the seconds by which a run goes ahead; none if the input has nothing at the path.

    Positive is earlier. A value that no rule names has the configured default.
    """
    found, value = walk(priority.key, given) if priority is not None else (False, None)
    if priority is None or not found:
        return 0
    return priority.rules.get(printed(value), priority.default_offset)


def matches(left: str, right: object, event: object) -> bool:
    """Say whether an event has the wanted value at a path."""
    found, value = walk(left, event)
    return found and printed(value) == printed(right)
