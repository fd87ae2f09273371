import json

import pytest

from trio_dagnats.wire import task
from trio_dagnats.wire.task import NotATask, Task, parse_task

FULL = {
    "task_id": "r.s",
    "run_id": "r",
    "step_id": "s",
    "iteration": 2,
    "attempt": 3,
    "input": {"a": 1},
    "metadata": {"k": "v"},
    "required_capabilities": ["control-plane"],
    "dispatch_nonce": "0c7b",
    "workflow_name": "w",
    "something_new": [1, {"x": None}],
}


def test_every_field_is_read_and_unknown_ones_are_ignored() -> None:
    """A full message gives a full task."""
    assert parse_task(json.dumps(FULL).encode()) == Task(
        run_id="r",
        step_id="s",
        task_id="r.s",
        iteration=2,
        attempt=3,
        input=b'{"a": 1}',
        metadata={"k": "v"},
        required_capabilities=("control-plane",),
        dispatch_nonce="0c7b",
        workflow_name="w",
        ids='"run_id":"r","step_id":"s"',
    )


def test_a_first_dispatch_has_number_one() -> None:
    """The attempt number is the payload's, else 1."""
    assert parse_task(b'{"run_id":"r","step_id":"s"}').number == 1
    assert parse_task(b'{"run_id":"r","step_id":"s","attempt":4}').number == 4


@pytest.mark.parametrize(
    "raw",
    [b'{"b" : 1.0,  "a":[ ]}', b"12345678901234567890123", b'"\\u00fc"', b"null", b"1e400", b"[]"],
)
def test_input_is_kept_to_the_letter(raw: bytes) -> None:
    """Spaces, key order and number formats of the input survive."""
    body = b' { "run_id" : "r" ,\n"input" : %b , "step_id":"s" } ' % raw
    assert parse_task(body).input == raw


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{not json",
        b"\xff\xfe",
        b'{"run_id":"r"',
        b'{"run_id" "r"}',
        b"1",
    ],
)
def test_what_is_no_object_is_no_task(body: bytes) -> None:
    """Anything but a JSON object is refused."""
    with pytest.raises(NotATask):
        parse_task(body)


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"run_id":"r"}',
        b'{"step_id":"s"}',
        b'{"run_id":"","step_id":"s"}',
        b'{"run_id":7,"step_id":"s"}',
        b'{"run_id":"a b","step_id":"s"}',
        b'{"run_id":"a\\u200bb","step_id":"s"}',
        b'{"run_id":"r","step_id":"\\ud800"}',
        b'{"run_id":"\\ud800","step_id":"s"}',
        '{"run_id":"a\u00adb","step_id":"s"}'.encode(),
    ],
)
def test_a_task_names_its_run_and_step(body: bytes) -> None:
    """Without both ids nobody could be told, and the text says which is missing."""
    with pytest.raises(NotATask, match=r"run_id|step_id"):
        parse_task(body)


@pytest.mark.parametrize(
    "rest",
    [
        b'"attempt":"1"',
        b'"attempt":-1',
        b'"attempt":true',
        b'"iteration":1.5',
        b'"iteration":%b' % (b"9" * 4200),
        b'"attempt":%b' % (b"9" * 4200),
        b'"metadata":{"a":1}',
        b'"metadata":[]',
        b'"required_capabilities":"x"',
        b'"workflow_name":1',
        b'"input":{]',
        b'"x":1}}',
    ],
)
def test_a_broken_message_still_names_who_waits(rest: bytes) -> None:
    """Where run and step can be read, the error carries them, so that the step can be failed."""
    with pytest.raises(NotATask) as refused:
        parse_task(b'{"run_id":"r","step_id":"s",%b}' % rest)
    assert (refused.value.run_id, refused.value.step_id) == ("r", "s")
    assert str(refused.value)


def test_deep_nesting_is_refused_not_fatal() -> None:
    """A message nested deeper than Python can go is no task."""
    with pytest.raises(NotATask):
        parse_task(b'{"input":' + b"[" * 100_000)


def usual(**more: object) -> bytes:
    body = {"task_id": "r.s", "run_id": "r", "step_id": "s", **more}
    return json.dumps(body, separators=(",", ":")).encode()


USUAL = [
    usual(),
    usual(input=1),
    usual(iteration=3, attempt=2, input={"a": [1, "}"]}, dispatch_nonce="ab", workflow_name="w x"),
    usual(input={"dispatch_nonce": "x"}),
    usual(input={"workflow_name": "x"}, workflow_name="w"),
    usual(input='","dispatch_nonce":"', dispatch_nonce="n"),
    usual(input="}", workflow_name=""),
]


@pytest.mark.parametrize("body", USUAL)
def test_the_short_way_reads_what_the_long_way_reads(body: bytes) -> None:
    assert task._any(body) == task.parse_task(body)


@pytest.mark.parametrize("body", USUAL)
def test_a_damaged_message_is_read_alike_on_both_ways(body: bytes) -> None:
    for at in range(len(body)):
        for damaged in (body[:at] + body[at + 1 :], body[:at] + b'"' + body[at:], body[:at] + b","):
            short = task._usual(damaged)
            if short is not None:
                assert task._any(damaged) == short


@pytest.mark.parametrize(
    "body",
    [
        usual(input=1, other=2),
        usual(input=1)[:-1] + b',"run_id":"other"}',
        usual(input=1)[:-1] + b',"input":2}',
        usual(run_id="a b"),
        usual(run_id="caf\u00e9"),
        usual(attempt=-1),
        b" " + usual(),
        usual() + b" ",
        usual(metadata={"a": "b"}),
    ],
)
def test_an_unusual_message_goes_the_long_way(body: bytes) -> None:
    assert task._usual(body) is None
