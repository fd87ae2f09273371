"""What counts as a change of a definition, and what is only another way of writing it."""

import json

import pytest

from trio_dagnats.wire.definitions.difference import ABSENT, Difference, differences
from trio_dagnats.wire.definitions.workflow import WorkflowDef
from trio_dagnats.wire.text import NS

A = {"id": "a", "task": "a"}
B = {"id": "b", "task": "b"}
MAP = {**B, "type": "map", "depends_on": ["a"], "config": {"max_items": 5}}
LATER = {**A, "kind_of_later": 1}
"""A step of a newer engine, which this package cannot read."""


def compared(stored: object, new: dict[str, object]) -> list[tuple[str, object, object]]:
    """Compare as the engine stores and as we send; both get a name and steps if they have none."""
    common = {"name": "w", "steps": [A]}
    raw = json.dumps({**common, **stored} if isinstance(stored, dict) else stored)
    found = differences(raw.encode(), WorkflowDef.read({**common, **new}))
    return [(found.path, found.stored, found.new) for found in found]


@pytest.mark.parametrize(
    ("stored", "new"),
    [
        ({}, {}),
        ({"version": "1", "timeout": 0, "default_retry": None}, {}),
        ({"steps": [{"type": "normal", "timeout": 0, "task": "a", "id": "a"}]}, {}),
        ({}, {"aux_steps": {}, "steps": [{**A, "metadata": {}, "required_capabilities": []}]}),
        ({"concurrency": {"max_runs": 0}}, {"concurrency": {}}),
        (
            {"default_retry": {"max_attempts": 2, "strategy": "fixed", "multiplier": 2}},
            {"default_retry": {"max_attempts": 2, "multiplier": 2.0}},
        ),
        (
            {"steps": [{**A, "on_failure": "b"}, B], "aux_steps": {"b": True}},
            {"steps": [{**A, "on_failure": "b"}, B]},
        ),
        ({"input_schema": {"a": [1.0], "b": {}}}, {"input_schema": {"b": {}, "a": [1]}}),
    ],
)
def test_another_way_of_writing_is_no_change(
    stored: dict[str, object], new: dict[str, object]
) -> None:
    assert compared(stored, new) == []


@pytest.mark.parametrize(
    ("stored", "new", "found"),
    [
        ({"version": ""}, {}, ("version", "", "1")),
        ({}, {"timeout": NS}, ("timeout", ABSENT, NS)),
        (
            {"steps": [A, {**MAP, "config": {"max_items": 4}}]},
            {"steps": [A, MAP]},
            ("steps.b.config.max_items", 4, 5),
        ),
        (
            {"steps": [A, B]},
            {"steps": [A, {**B, "depends_on": ["a"]}]},
            ("steps.b.depends_on", ABSENT, ["a"]),
        ),
        ({"steps": [B, A]}, {}, ("steps.b", {**B, "timeout": 0, "type": "normal"}, ABSENT)),
        ({"steps": [B, A]}, {"steps": [A, B]}, ("steps", ["b", "a"], ["a", "b"])),
        # Without it, the failure handler is a step that runs at once.
        (
            {"steps": [{**A, "on_failure": "b"}, B]},
            {"steps": [{**A, "on_failure": "b"}, B]},
            ("aux_steps.b", ABSENT, True),
        ),
        # In a schema, what is empty or false means something.
        ({"input_schema": {"a": 0}}, {"input_schema": {}}, ("input_schema.a", 0, ABSENT)),
        (
            {"input_schema": {"a": [1]}},
            {"input_schema": {"a": [True]}},
            ("input_schema.a", [1], [True]),
        ),
        ({"input_schema": {"a": None}}, {"input_schema": {}}, ("input_schema.a", None, ABSENT)),
    ],
)
def test_a_change_is_named_by_its_path(
    stored: dict[str, object], new: dict[str, object], found: tuple[str, object, object]
) -> None:
    assert compared(stored, new) == [found]


@pytest.mark.parametrize(
    ("stored", "path"),
    [
        ({"later": True}, "later"),
        ({"steps": [LATER]}, "steps.a.kind_of_later"),
        ({"steps": [LATER, 5, {"id": ["a"]}]}, "steps.['a']"),
        ({"steps": 5}, "steps.a"),
        (5, "name"),
        ("no definition", "steps.a"),
    ],
)
def test_what_cannot_be_read_is_compared_key_by_key(stored: object, path: str) -> None:
    assert path in [found[0] for found in compared(stored, {})]


def test_bytes_that_are_no_json_are_replaced_as_a_whole() -> None:
    found = differences(b"{", WorkflowDef.read({"name": "w", "steps": [A]}))

    assert Difference("name", ABSENT, "w") in found
