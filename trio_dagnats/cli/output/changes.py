"""What registering changes, as lines for people and as a JSON document. Pure.

One line a workflow and one for each place that differs, as in a diff::

    changed    report
      ~ steps.fetch.timeout: 30 s -> 60 s     another value
      + steps.send                            only in the new one
      - priority                              only in the stored one

The comparison itself is ``wire.difference``; here it is only said.
"""

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import takewhile
from typing import final

from rich.text import Text

from trio_dagnats.cli.output import render, texts
from trio_dagnats.cli.output.documents import Document
from trio_dagnats.wire.definitions.difference import ABSENT, Difference
from trio_dagnats.wire.text import NS

MOST_DIFFERENCES = 10
"""Lines for one workflow; the JSON document has all."""
MOST_CHARACTERS = 30
"""Of a value, so that two of them and their path mostly fit 80 columns."""
IN_COMMON = 8
"""Characters of a long value that stand before the first one that differs."""
_DURATION = re.compile(
    r"(?!(input_schema|output_schema|priority)\.)(.*\.)?"
    r"(timeout|duration|period|loop_delay|max_duration|initial_delay|max_delay)"
)
"""Paths whose numbers are nanoseconds on the wire, shown as seconds. Not inside of what the user
has written freely (schemas, rules), where the same words mean anything.
"""


@final
class State(StrEnum):
    """What registering makes, or has made, of a workflow.

    ``NEW``, ``CHANGED`` and ``UNCHANGED`` come from a comparison, ``REFUSED`` from the engine's
    answer.
    """

    NEW = "new"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


def state_of(differences: Sequence[Difference] | None) -> State:
    """Judge by what would change; None if no workflow is registered under that name."""
    if differences is None:
        return State.NEW
    return State.CHANGED if differences else State.UNCHANGED


def lines(name: str, state: State, differences: Sequence[Difference]) -> Iterator[Text]:
    """Yield a line for the workflow, and one for each place that changes.

    The document has all places; a person who sees ten of them opens the file anyway.
    """
    yield Text.assemble(render.status(state), " " * (11 - len(state)), name)
    for found in differences[:MOST_DIFFERENCES]:
        yield Text(f"  {_line(found)}")
    if len(differences) > MOST_DIFFERENCES:
        yield Text(f"  and {len(differences) - MOST_DIFFERENCES} more; --json has all")


def document(
    name: str, state: State, differences: Sequence[Difference], error: str | None = None
) -> Document:
    """Describe what became of a workflow; a value that is not there has no key.

    What ``register --json`` writes, one a line. ``error`` is the engine's refusal, or ``null``.
    """
    listed = [
        {"path": path} | {key: v for key, v in (("stored", old), ("new", new)) if v is not ABSENT}
        for path, old, new in ((d.path, d.stored, d.new) for d in differences)
    ]
    return {"workflow": name, "state": state.value, "differences": listed, "error": error}


def _line(found: Difference) -> str:
    """Write one place; a new value that is an object is not written out."""
    if found.new is ABSENT:
        return f"- {found.path}"
    new = _value(found.path, found.new)
    if found.stored is not ABSENT:
        stored = _value(found.path, found.stored)
        pairs = zip(stored, new, strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        return f"~ {found.path}: {_cut(stored, same)} -> {_cut(new, same)}"
    return f"+ {found.path}" if isinstance(found.new, dict) else f"+ {found.path}: {_cut(new)}"


def _value(path: str, value: object) -> str:
    """Write a value: nanoseconds as seconds, everything else as JSON."""
    if isinstance(value, int) and _DURATION.fullmatch(path):
        return f"{value / NS:.12g} s"
    return texts.one_line(texts.value(value))


def _cut(text: str, same: int = 0) -> str:
    """Cut a long text; what it has in common with the other one may go, what differs stays."""
    if len(text) <= MOST_CHARACTERS:
        return text
    begin = max(0, same - IN_COMMON)
    rest = f"{'...' if begin else ''}{text[begin:]}"
    return rest if len(rest) <= MOST_CHARACTERS else f"{rest[: MOST_CHARACTERS - 3]}..."
