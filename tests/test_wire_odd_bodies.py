"""Whatever bytes come in, a parser of the wire returns a value or raises a WireError, no other."""

import base64
import inspect
import json
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module

import pytest

import trio_dagnats.wire
from trio_dagnats.attempt.loop_state import MARK, read_state
from trio_dagnats.attempt.note import decode
from trio_dagnats.errors import UsageError, WireError
from trio_dagnats.wire.definitions.workflow import WorkflowDef
from trio_dagnats.wire.events import parse_event
from trio_dagnats.wire.run import WorkflowRun
from trio_dagnats.worker.engine.facts import _run_facts, _step_facts

DEEP = 10_000
TIME = "2026-01-01T00:00:00Z"
STEP = {"id": "s", "task": "t"}
GOOD: list[dict[str, object]] = [
    {
        "type": "workflow.x",
        "run_id": "r",
        "step_id": "s",
        "timestamp": TIME,
        "payload": 1,
        "worker_id": "w",
        "attempt_number": 1,
    },
    {
        "task_id": "r.s",
        "run_id": "r",
        "step_id": "s",
        "iteration": 1,
        "attempt": 2,
        "input": 1,
        "metadata": {},
        "required_capabilities": [],
        "dispatch_nonce": "n",
        "workflow_name": "w",
    },
    {
        "run_id": "r",
        "workflow_id": "w",
        "status": "running",
        "steps": {},
        "input": 1,
        "created_at": TIME,
        "deadline": TIME,
        "dynamic_steps": [],
        "run_at": TIME,
    },
    {"worker_id": "w", "task_types": ["t"], "max_tasks": 1, "metadata": {}, "pid": 1},
    {"worker_id": "w", "part": 0, "more": False, "attempts": []},
    {"id": "w", "endpoints": [], "metadata": {}},
    {"id": "w", "endpoints": [{"name": "attempts", "subject": "s"}], "metadata": {"pid": "1"}},
    {"name": "w", "version": "1", "steps": [STEP], "timeout": 1, "default_retry": None},
    {"dispatch": 1, "let_go": 0, "pause": {"number": 1, "until_ns": 2}, "signals": {"a": 1}},
    {MARK: 1, "state": 1, "iteration": 1, "dispatch": 1, "signals": {"a": 1}, "begun_ns": 1},
]
ODD = [
    *(b"NaN", b"Infinity", b"-Infinity", b"1e999", b"9" * 400, b"9" * 5000, b"-1", b"1.5"),
    *(b"null", b"true", b"[]", b"{}", b"[null]", b"[1]", b'{"a":null}', b"[{}]", b"nan"),
    *(b'""', b'"x"', rb'"\ud800"', b'"\xed\xa0\x80"', b'"\xff"', '"²"'.encode(), b'"\\u0000"'),
    *(b"[" * DEEP + b"]" * DEEP, b'{"a":' * DEEP + b"1" + b"}" * DEEP, b"[" * 150 + b"]" * 150),
    *(b'{"pid":Infinity}', b'{"number":Infinity,"until_ns":1}', b'{"a":1e999}'),
    b'[{"id":"s","timeout":%b,"retries":NaN,"config":[]}]' % (b"9" * 400),
]
WHOLE = [b"", b" ", b"\xff", b"\x00", b"\xef\xbb\xbf{}", b"{", b'{"a":1,"a":NaN}', b"{}{}"]


def bodies() -> Iterator[bytes]:
    """Yield odd bodies: odd values alone, and in the place of each value of a good body."""
    yield from (*ODD, *WHOLE)
    for good in GOOD:
        for key in good:
            rest = json.dumps({name: value for name, value in good.items() if name != key})
            for odd in ODD:
                member = b"%b:%b" % (json.dumps(key).encode(), odd)
                yield b"%b,%b}" % (rest[:-1].encode(), member)
                yield b"{%b,%b" % (member, rest[1:].encode())
                yield b"{%b,%b,%b" % (member, member, rest[1:].encode())


def parsers() -> dict[str, Callable[..., object]]:
    """Find what reads bytes or text in the modules of the wire, by its name."""
    found: dict[str, Callable[..., object]] = {}
    for module in pkgutil.walk_packages(trio_dagnats.wire.__path__, "trio_dagnats.wire."):
        members = vars(import_module(module.name))
        for name, member in members.items():
            if getattr(member, "__module__", "") != module.name:
                continue
            if inspect.isfunction(member) and name.startswith(("parse_", "read_")):
                found[name] = member
            for reader in ("read", "from_bytes"):
                if inspect.isclass(member) and reader in vars(member):
                    found[f"{name}.{reader}"] = getattr(member, reader)
    return found


PARSERS = parsers()


def test_the_parsers_are_found() -> None:
    assert {"parse_event", "parse_task", "parse_rfc3339", "read_info", "read_part"} <= set(PARSERS)
    assert {"WorkflowRun.read", "WorkerRegistration.from_bytes"} <= set(PARSERS)


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_raises_a_wire_error_alone(name: str) -> None:
    parse = PARSERS[name]
    first = next(iter(inspect.signature(parse).parameters.values()))
    # A definition is the user's as often as the wire's: it says what is wrong as a UsageError.
    refusal = UsageError if parse == WorkflowDef.read else WireError
    for body in bodies():
        try:
            parse(body.decode("utf-8", "surrogateescape") if first.annotation is str else body)
        except refusal:
            continue


@pytest.mark.parametrize("read", [decode, read_state, _run_facts, _step_facts])
def test_what_reads_leniently_raises_nothing(read: Callable[[bytes], object]) -> None:
    for body in bodies():
        read(body)


@pytest.mark.parametrize("payload", [b"NaN", b"1e999", b"[Infinity]", rb'"\ud800"'])
def test_an_event_that_could_not_be_written_again_is_none(payload: bytes) -> None:
    with pytest.raises(WireError):
        parse_event(b'{"type":"workflow.x","run_id":"r","payload":%b}' % payload)


@pytest.mark.parametrize("raw", [b"NaN!", b"{", b"[" * DEEP, b"\xff"])
@pytest.mark.parametrize("encoded", [True, False])
def test_an_output_that_is_no_json_is_a_wire_error(raw: bytes, *, encoded: bool) -> None:
    output = (base64.b64encode(raw) if encoded else raw).decode("latin-1")
    stored = {"run_id": "r", "workflow_id": "w", "status": "running"}
    run = WorkflowRun.read(json.dumps({**stored, "steps": {"s": {"output": output}}}).encode())

    with pytest.raises(WireError):
        run.steps["s"].value()
