"""What a step gets as input, and whether it is skipped (contract 10.2, 10.5). Pure."""

import json
from collections.abc import Callable, Mapping

from trio_dagnats.wire.run import StepState, WorkflowRun
from trio_dagnats.wire.steps import SkipIf, StepDef
from trio_dagnats.wire.text import compact

MAP_MARK = ".map."

_ORDERED: dict[str, Callable[[float | str, float | str], bool]] = {
    "<": lambda a, b: a < b,  # type: ignore[operator]  # both are numbers or both are strings
    ">": lambda a, b: a > b,  # type: ignore[operator]
    "<=": lambda a, b: a <= b,  # type: ignore[operator]
    ">=": lambda a, b: a >= b,  # type: ignore[operator]
}


def resolve_input(step: StepDef, run: WorkflowRun) -> bytes:
    """Return the JSON of a step's input, empty for none.

    No dependency: the run's input. One: its output. Several: an object of all outputs.
    """
    if not step.depends_on:
        return b"" if run.input is None else compact(run.input)
    if len(step.depends_on) == 1:
        return run.steps[step.depends_on[0]].raw_output()
    parts = [
        b"%b:%b" % (compact(name), run.steps[name].raw_output() or b"null")
        for name in sorted(step.depends_on)
    ]
    return b"{%b}" % b",".join(parts)


def instance_id(step_id: str, index: int) -> str:
    """Return the id of an instance of a map step."""
    return f"{step_id}{MAP_MARK}{index}"


def split_instance(step_id: str) -> tuple[str, int] | None:
    """Read an instance's id; None if it is a step's own."""
    name, mark, index = step_id.rpartition(MAP_MARK)
    return (name, int(index)) if mark and index.isdigit() else None


def skips(rule: SkipIf | None, steps: Mapping[str, StepState]) -> bool:
    """Say whether a step is to be skipped. A field that is not there never skips."""
    if rule is None:
        return False
    output = steps[rule.step_id].value()
    if not isinstance(output, dict) or rule.field not in output:
        return False
    return compare(output[rule.field], rule.op, rule.value)


def compare(left: object, op: str, right: object) -> bool:
    """Compare numbers, strings and truth values; things of different kinds are only unequal."""
    same = type(left) is type(right) or (_is_number(left) and _is_number(right))
    if op == "==":
        return same and left == right
    if op == "!=":
        return not same or left != right
    if isinstance(left, str) and isinstance(right, str):
        return _ORDERED[op](left, right)
    if _is_number(left) and _is_number(right):
        return _ORDERED[op](left, right)  # type: ignore[arg-type]  # checked in the line above
    return False


def read_items(raw: bytes) -> list[object] | None:
    """Read the list that a map step maps over; None if it is none."""
    found = json.loads(raw) if raw else None
    return found if isinstance(found, list) else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
