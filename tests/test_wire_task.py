import json

import pytest

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
