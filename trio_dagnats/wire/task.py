"""The task message: a dispatched step (contract 2.3).

Read in two ways, which must agree (``tests/test_wire_task.py`` compares them)::

    body ──> _usual: two patterns around the input ──> Task                  nearly all
                │ anything unusual: another order, an escape, an unknown key
                └──> _any: key by key ──> Task, or NotATask with what could be read

Why not a JSON parser: the input has to stay as it was sent, to the byte. Read and written again, a
number could change (1e400 is no float), and a large input would be copied for nothing. So the input
is only looked over (``text.skim``), and the rest is small enough for a pattern.

A message that is no task must not be lost (contract H4). ``NotATask`` carries the run and the step
if they can be read: then the step is failed by an event (``stand_in``). The message itself goes to
the dead letters in either case, and without a step to fail TERM follows only when it is there.

Called by the worker's ``triage``, once for each delivery.
"""

import re
from collections.abc import Callable, Mapping
from json import JSONDecoder
from types import MappingProxyType
from typing import NamedTuple, final

from trio_dagnats.errors import WireError
from trio_dagnats.wire.subjects import MAX_ID_BYTES, is_id
from trio_dagnats.wire.text import quote, skim

NO_METADATA: Mapping[str, str] = MappingProxyType({})


@final
class Task(NamedTuple):
    """A task as the engine sent it. A named tuple, because one is made for every message.

    It does not say which delivery it is. That is the message's affair (``port.Delivery``), and
    tells nothing about how often the step was tried (contract H39).

    Attributes:
        run_id: the run.
        step_id: the step; instances of a map end in ``.map.<index>``.
        task_id: run and step joined.
        attempt: the payload's attempt number, 0 if it has none.
        iteration: the payload's loop iteration, 0 for the first.
        input: the input's JSON exactly as it was sent; empty if there is none.
        metadata: the step's metadata; the real engine sends none (contract H1).
        required_capabilities: what the engine granted.
        dispatch_nonce: the proof for control-plane calls.
        workflow_name: the workflow's name.
        ids: the members ``run_id`` and ``step_id`` as JSON writes them, for the events; empty if
            they are still to be written.
    """

    run_id: str
    step_id: str
    task_id: str = ""
    attempt: int = 0
    iteration: int = 0
    input: bytes = b""
    metadata: Mapping[str, str] = NO_METADATA
    required_capabilities: tuple[str, ...] = ()
    dispatch_nonce: str = ""
    workflow_name: str = ""
    ids: str = ""

    @property
    def number(self) -> int:
        """The attempt number on every delivery: the payload's, else 1 (design 8.1)."""
        return self.attempt or 1


NO_TASK = Task(run_id="", step_id="", task_id="")
"""Stands for a task whose message is not parsed yet."""


class NotATask(WireError):  # noqa: N818 - named for what the message is
    """A message in the task queue that is no task.

    Its text is for the log and for the failure of the step: it says what is wrong, and where.

    Attributes:
        run_id: the run it names, empty if it cannot be read, or no event can be stored for it.
        step_id: the step it names, empty if it cannot be read; perhaps one that no key can hold.
    """

    def __init__(self, text: str, *, run_id: str = "", step_id: str = "") -> None:
        super().__init__(text)
        self.run_id = run_id
        self.step_id = step_id


# JSON's blanks are these four; ``\s`` would take others, which no JSON parser lets stand there.
_SCAN: Callable[[str, int], tuple[object, int]] = JSONDecoder().scan_once  # type: ignore[attr-defined]  # set by its constructor, not declared
_SPACE = r"[ \t\n\r]*"
_OPEN = re.compile(rf"{_SPACE}\{{{_SPACE}(\}}?)").match
_KEY = re.compile(rf'{_SPACE}"([^"\\\x00-\x1f]*)"{_SPACE}:{_SPACE}').match
_COLON = re.compile(rf"{_SPACE}:{_SPACE}").match
_NEXT = re.compile(rf"{_SPACE}([,}}])").match
# Printable ASCII without the quote, the backslash and the blank, and without what a subject gives a
# meaning to; no comma either. So an id of such parts is an id, and needs no escaping anywhere.
_USUAL_PART = r"[!#-)+\-/-=?-\[\]-~]+"
_USUAL_ID = rf"{_USUAL_PART}(?:\.{_USUAL_PART})*"
_USUAL_HEAD = re.compile(
    rf'\{{"task_id":"({_USUAL_ID})",("run_id":"({_USUAL_ID})","step_id":"({_USUAL_ID})")'
    r'(?:,"iteration":([1-9]\d{0,8}))?(?:,"attempt":([1-9]\d{0,8}))?(?:,"(input)":)?'
).match
_HEAD_MOST = 1024
"""Bytes of a message in which all before its input is found."""
_USUAL_TAIL = re.compile(
    rb'(?:,"dispatch_nonce":"([!#-\[\]-~]*)")?(?:,"workflow_name":"([ !#-\[\]-~]*)")?\}'
).fullmatch
# Members that must be texts or counts; the metadata and the capabilities are looked at apart.
_STRINGS = frozenset({"run_id", "step_id", "task_id", "dispatch_nonce", "workflow_name"})
_NUMBERS = frozenset({"attempt", "iteration"})


def parse_task(body: bytes) -> Task:
    """Read a task message; unknown keys are ignored, as the Go worker does.

    Of a key that stands there twice the last one counts, as with any JSON reader.

    Raises:
        NotATask: not JSON, no object, a key of a wrong type, or no usable run and step.
    """
    return _usual(body) or _any(body)


def event_ids(run_id: str, step_id: str) -> str:
    """Write the members of an event that name its run and step.

    The usual message has them in just this form, so they are taken over from it as they are.
    """
    return f'"run_id":{quote(run_id)},"step_id":{quote(step_id)}'


def stand_in(unreadable: NotATask) -> Task:
    """Return a task for what a message names that is none, so that its step can be failed.

    The event names the step as the message does, ids and logs by a text that fits there.
    """
    run_id, step_id = unreadable.run_id, unreadable.step_id
    shown = step_id if step_id.isprintable() else quote(step_id)[1:-1]
    return Task(
        run_id=run_id,
        step_id=shown,
        task_id=f"{run_id}.{shown}",
        ids=event_ids(run_id, step_id),
    )


def _usual(body: bytes) -> Task | None:
    """Read a message written as the engine writes nearly all of them; None for any other.

    Two patterns around the input check all the rest: its keys are the known ones, in their order,
    without escapes. The input stays as it was sent, and is checked to be JSON.
    """
    # Only the first bytes are decoded: a large input must not be.
    # One character for one byte: what the pattern takes is ASCII, and positions are the same.
    head = _USUAL_HEAD(body[:_HEAD_MOST].decode("latin-1"))
    if head is None:
        return None
    task_id, ids, run_id, step_id, iteration, attempt, has_input = head.groups()
    at, tail_at, given, nonce, workflow = head.end(), len(body) - 1, b"", "", ""
    if body.endswith(b'"}'):
        found = body.rfind(b',"dispatch_nonce":"', at)
        found = found if found >= 0 else body.rfind(b',"workflow_name":"', at)
        tail_at = found if found >= 0 else tail_at
        tail = _USUAL_TAIL(body, tail_at)
        if tail is None:
            return None
        nonce, workflow = map(bytes.decode, tail.groups(b""))
    elif not body.endswith(b"}"):
        return None
    if has_input:
        given = body[at:tail_at].strip()
        try:
            skim(given)
        except ValueError:
            return None
    elif tail_at != at:
        return None
    numbers = int(attempt) if attempt else 0, int(iteration) if iteration else 0
    rest = (given, NO_METADATA, (), nonce, workflow, ids)
    # As its own constructor does it, which is one call more.
    return tuple.__new__(Task, (run_id, step_id, task_id, *numbers, *rest))


def _any(body: bytes) -> Task:
    """Read any message; what is wrong with it is told with as much as could be read.

    Raises:
        NotATask: it is none.
    """
    fields, problem = _read(body)
    run_id, step_id = _name(fields, "run_id"), _name(fields, "step_id")
    problem = problem or _problem(fields, run_id, step_id)
    if problem:
        raise NotATask(problem, run_id=run_id, step_id=step_id or _said(fields, "step_id"))
    metadata = fields.get("metadata")
    capabilities = fields.get("required_capabilities")
    return Task(
        run_id=run_id,
        step_id=step_id,
        task_id=_text(fields, "task_id"),
        attempt=_number(fields, "attempt"),
        iteration=_number(fields, "iteration"),
        input=_input(fields),
        metadata=metadata if isinstance(metadata, dict) else NO_METADATA,
        required_capabilities=tuple(capabilities) if isinstance(capabilities, list) else (),
        dispatch_nonce=_text(fields, "dispatch_nonce"),
        workflow_name=_text(fields, "workflow_name"),
        ids=event_ids(run_id, step_id),
    )


def _read(body: bytes) -> tuple[dict[str, object], str]:
    """Return what could be read of the top-level object, and what is wrong with it (or "").

    Members that stand before a mistake are kept: run and step come first in what an engine writes,
    so the step of a message that was cut off can still be failed.
    """
    fields: dict[str, object] = {}
    try:
        text = body.decode()
        end = _read_fields(text, fields)
    except StopIteration as error:
        return fields, f"not JSON at character {error.value}"
    except IndexError:
        return fields, "not JSON: it ends too early"
    except (ValueError, RecursionError) as error:
        return fields, f"not JSON: {error}"
    if text[end:].strip():
        return fields, f"not JSON: more text after the object at character {end}"
    return fields, ""


def _read_fields(text: str, fields: dict[str, object]) -> int:
    """Read the object key by key, so that ``input`` stays as it was sent; return where it ends."""
    opened = _OPEN(text)
    if opened is None:
        raise ValueError(f"expected an object, found {text[:40]!r}")
    at = opened.end()
    if opened[1]:
        return at
    while True:
        named = _KEY(text, at)
        key, start = (named[1], named.end()) if named else _escaped_key(text, at)
        value, at = _SCAN(text, start)
        fields[key] = text[start:at].encode() if key == "input" else value
        after = _NEXT(text, at)
        if after is None:
            if not text[at:].strip():
                raise IndexError
            raise ValueError(f"expected a comma at character {at}")
        at = after.end()
        if after[1] == "}":
            return at


def _escaped_key(text: str, at: int) -> tuple[str, int]:
    """Read a key that holds escapes, or find out that it is none."""
    if not text[at:].strip():
        raise IndexError
    key, end = _SCAN(text, at + len(text[at:]) - len(text[at:].lstrip()))
    colon = _COLON(text, end)
    if not isinstance(key, str) or colon is None:
        raise ValueError(f"expected a key and a colon at character {at}")
    return key, colon.end()


def _problem(fields: dict[str, object], run_id: str, step_id: str) -> str:
    """Say what is wrong with a message's members, empty if nothing is.

    A wrong type anywhere makes it no task: to go on with a default would run a step with another
    attempt, or without a capability, than the engine has said.
    """
    if not run_id or not step_id:
        missing = " and ".join(n for n, v in (("run_id", run_id), ("step_id", step_id)) if not v)
        return f"no usable {missing}"
    for name, value in fields.items():
        if name in _STRINGS:
            if not isinstance(value, str):
                return f"{name} is not a string"
        elif name in _NUMBERS and (
            not isinstance(value, int) or isinstance(value, bool) or value < 0
        ):
            return f"{name} is not a whole number >= 0"
    metadata = fields.get("metadata")
    if metadata is not None and not _is_string_map(metadata):
        return "metadata is not an object of strings"
    capabilities = fields.get("required_capabilities")
    if capabilities is not None and not (
        isinstance(capabilities, list) and all(isinstance(c, str) for c in capabilities)
    ):
        return "required_capabilities is not a list of strings"
    return ""


def _is_string_map(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())


def _name(fields: dict[str, object], key: str) -> str:
    """Return an id if it can be part of subjects and keys; anything else would be unusable."""
    value = fields.get(key)
    return value if isinstance(value, str) and value.isprintable() and is_id(value) else ""


def _said(fields: dict[str, object], key: str) -> str:
    """Return an id as it was said: an event can name it though no subject and no key can."""
    value = _text(fields, key)
    return value if len(value) <= MAX_ID_BYTES else ""


def _text(fields: dict[str, object], key: str) -> str:
    value = fields.get(key, "")
    return value if isinstance(value, str) else ""


def _number(fields: dict[str, object], key: str) -> int:
    value = fields.get(key, 0)
    return value if isinstance(value, int) else 0


def _input(fields: dict[str, object]) -> bytes:
    """Return the input's own bytes, as ``_read_fields`` has cut them out."""
    value = fields.get("input", b"")
    return value if isinstance(value, bytes) else b""
