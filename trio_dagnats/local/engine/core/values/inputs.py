"""What a step gets as input, and whether it is skipped (contract 10.2, 10.5). Pure.

Nothing here is stored: a step's input is made from the run whenever it is wanted, for the first
task, for a retry, and once more after a crash. It is the same each time, as outputs of completed
steps do not change while somebody depends on them.
"""

import json
from collections.abc import Callable, Mapping

from trio_dagnats.local.engine.core.state import RunState
from trio_dagnats.wire.definitions.steps import SkipIf, StepDef
from trio_dagnats.wire.run import StepState, WorkflowRun
from trio_dagnats.wire.text import compact

_ORDERED: dict[str, Callable[[float | str, float | str], bool]] = {
    "<": lambda a, b: a < b,  # type: ignore[operator]  # both are numbers or both are strings
    ">": lambda a, b: a > b,  # type: ignore[operator]
    "<=": lambda a, b: a <= b,  # type: ignore[operator]
    ">=": lambda a, b: a >= b,  # type: ignore[operator]
}


def input_of(who: str, state: RunState) -> bytes:
    """Return the JSON of the input of a step or of an instance of a map, empty for none.

    Handlers of failures and compensations get what has failed in place of their dependencies'
    outputs, of which they have none. An instance of a map gets its item.

    Raises:
        WireError: a stored output is no base64; only a foreign hand can have written that.
    """
    step, index = state.step_and_index(who)
    if step.id in state.book.handling:
        return _handler_input(step, state)
    given = resolve_input(step, state.run)
    if index is None:
        return given
    items = read_items(given)
    assert items is not None  # the map has begun
    return compact(items[index])


def _handler_input(step: StepDef, state: RunState) -> bytes:
    """Say what has failed (contract 6.4).

    The DagNats engine quotes the error by Go's rules, which for control characters is no JSON: the
    run hangs (contract H26).

    Objects are put together as bytes, so that the original output stays as its worker wrote it.
    """
    source, book, steps = state.book.handling[step.id], state.book, state.run.steps
    if source not in book.undone:
        return compact({"failed_step": source, "error": steps[source].error})
    head = compact({"original_step": source})[:-1]
    why = compact({"trigger_step": book.trigger, "trigger_error": steps[book.trigger].error})[1:]
    return b'%b,"original_output":%b,%b' % (head, steps[source].raw_output() or b"null", why)


def resolve_input(step: StepDef, run: WorkflowRun) -> bytes:
    """Return the JSON of what a step's dependencies give it, empty for none.

    No dependency: the run's input. One: its output. Several: an object of all outputs.

    Dependencies without an output (skipped, recovered) are ``null`` in an object, and nothing at
    all where there is only one. Names are sorted, so that the same run gives the same bytes.
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


def skips(rule: SkipIf | None, steps: Mapping[str, StepState]) -> bool:
    """Say whether a step is to be skipped. A field that is not there never skips."""
    if rule is None:
        return False
    output = steps[rule.step_id].value()
    if not isinstance(output, dict) or rule.field not in output:
        return False
    return compare(output[rule.field], rule.op, rule.value)


def compare(left: object, op: str, right: object) -> bool:
    """Compare numbers, strings and truth values; things of different kinds are only unequal.

    No conversion: "5" and 5 are unequal here, unlike in ``paths.matches``. A truth value is no
    number, though Python counts it as one. An order between kinds is always false, so it never
    skips a step.
    """
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
