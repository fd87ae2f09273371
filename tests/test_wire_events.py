import json

import pytest

from trio_dagnats.errors import WireError
from trio_dagnats.wire import events
from trio_dagnats.wire.events import FailureType
from trio_dagnats.wire.task import Task
from trio_dagnats.wire.trace import NO_TRACE, TraceContext, from_headers

TASK = Task(run_id="r", step_id="s")
RETRY = Task(run_id="r", step_id="s", attempt=2)
LOOP = Task(run_id="r", step_id="s", iteration=3)
NOW = 1_500_000_000
STAMP = "1970-01-01T00:00:01.5Z"
TRACE = TraceContext(traceparent="00-aa-bb-01", tracestate="x=y")


def test_started_says_the_same_number_on_every_delivery() -> None:
    """The number costs no retry budget again; the id tells the deliveries apart."""
    first = events.started(TASK, worker_id="w", time_ns=NOW, trace=NO_TRACE)
    again = events.started(TASK, worker_id="w", time_ns=NOW, trace=NO_TRACE, deliveries=3)
    assert first.msg_id == "r.s.step.started.1"
    assert again.msg_id == "r.s.step.started.1.d3"
    assert first.subject == "history.r"
    assert json.loads(first.body) == {
        "type": "step.started",
        "run_id": "r",
        "step_id": "s",
        "timestamp": STAMP,
        "worker_id": "w",
        "attempt_number": 1,
    }
    assert first.body == again.body


@pytest.mark.parametrize(
    ("task", "suffix", "number"),
    [(TASK, "", None), (RETRY, ".2", 2), (LOOP, ".i3", None)],
)
def test_completed_names_attempt_and_iteration(task: Task, suffix: str, number: int | None) -> None:
    """A first attempt has no number; later ones and iterations are in the id."""
    event = events.completed(task, b'{"a":1}', worker_id="w", time_ns=NOW, trace=NO_TRACE)
    body = json.loads(event.body)
    assert event.msg_id == f"r.s.step.completed{suffix}"
    assert body["payload"] == {"a": 1}
    assert body.get("attempt_number") == number


def test_an_empty_output_leaves_the_key_out() -> None:
    """No output is not null."""
    event = events.completed(TASK, b"", worker_id="w", time_ns=NOW, trace=NO_TRACE)
    assert "payload" not in json.loads(event.body)


@pytest.mark.parametrize(
    ("kind", "after", "expected"),
    [
        (FailureType.RETRIABLE, 500, None),
        (FailureType.NON_RETRIABLE, 500, None),
        (FailureType.RETRY_AFTER, 500, 500),
        (FailureType.RETRY_AFTER, 0, 100),
        (FailureType.RETRY_AFTER, 10**9, 3_600_000),
    ],
)
def test_failed_carries_kind_and_clamped_delay(
    kind: FailureType, after: int, expected: int | None
) -> None:
    """Only retry_after has a delay, within the engine's bounds."""
    event = events.failed(
        TASK, kind, "boom", retry_after_ms=after, worker_id="w", time_ns=NOW, trace=NO_TRACE
    )
    payload = json.loads(event.body)["payload"]
    assert payload["failure_type"] == kind.value
    assert payload.get("retry_after_ms") == expected


def test_failed_never_has_an_empty_text() -> None:
    """The engine would take an empty text for a retriable failure."""
    event = events.failed(
        TASK, FailureType.NON_RETRIABLE, "\x07", worker_id="w", time_ns=NOW, trace=NO_TRACE
    )
    assert json.loads(event.body)["payload"]["error"] == "unknown error"


def test_continued_names_its_dispatch() -> None:
    """One continue per dispatch: its id holds iteration and stream sequence, its body no worker."""
    event = events.continued(LOOP, b"", dispatch=77, iteration=3, time_ns=NOW, trace=NO_TRACE)
    assert event.msg_id == "r.s.continue.3.77"
    assert json.loads(event.body).keys() == {"type", "run_id", "step_id", "timestamp"}


def test_trace_fields_are_underscored_in_bodies_and_plain_in_headers() -> None:
    """The body repeats what the headers carry, under Go's names."""
    event = events.completed(TASK, b"1", worker_id="w", time_ns=NOW, trace=TRACE)
    body = json.loads(event.body)
    assert (body["trace_parent"], body["trace_state"]) == ("00-aa-bb-01", "x=y")
    assert event.headers == {"traceparent": "00-aa-bb-01", "tracestate": "x=y"}
    assert from_headers(event.headers) == TRACE


@pytest.mark.parametrize("text", ['quo"te', "back\\slash", "ü", "tab\t"])
def test_strange_ids_stay_json(text: str) -> None:
    """Whatever stands in an id, the body is JSON and gives it back."""
    task = Task(run_id=text, step_id=text)
    event = events.started(task, worker_id=text, time_ns=NOW, trace=NO_TRACE)
    assert json.loads(event.body)["run_id"] == text


def test_cancelled_is_the_contracts_event() -> None:
    """Cancelling a run is one event under a fixed id."""
    event = events.cancelled("r", NOW)
    assert event.msg_id == "r.workflow.cancelled"
    assert json.loads(event.body) == {
        "type": "workflow.cancelled",
        "run_id": "r",
        "timestamp": STAMP,
    }


def test_parse_event_reads_back_what_was_written() -> None:
    """A worker's own event survives the way through a history."""
    written = events.failed(
        RETRY, FailureType.RETRIABLE, "x", worker_id="w", time_ns=NOW, trace=TRACE
    )
    event = events.parse_event(written.body)
    assert (event.type, event.run_id, event.step_id) == ("step.failed", "r", "s")
    assert (event.worker_id, event.attempt_number, event.timestamp_ns) == ("w", 2, NOW)
    assert json.loads(event.payload) == {"error": "x", "failure_type": "retriable"}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"{}", b'{"type":"x"}', b'{"type":1,"run_id":"r"}']
)
def test_parse_event_refuses_what_is_no_event(body: bytes) -> None:
    """Only an object with a type and a run is an event."""
    with pytest.raises(WireError):
        events.parse_event(body)


def test_parse_event_takes_odd_fields_as_absent() -> None:
    """Fields of a wrong type do not make a foreign event unreadable."""
    event = events.parse_event(
        b'{"type":"t","run_id":"r","step_id":1,"timestamp":"never","attempt_number":"x"}'
    )
    assert (event.step_id, event.timestamp_ns, event.attempt_number) == ("", None, None)
