"""The micro service protocol: subjects and answers (ADR-32)."""

import json

import pytest

from trio_dagnats.errors import WireError
from trio_dagnats.wire import micro
from trio_dagnats.wire.micro import EndpointStats, Verb
from trio_dagnats.wire.registration import WorkerRegistration

WORKER = WorkerRegistration(
    worker_id="w1", task_types=("a", "b"), max_tasks=5, pid=42, hostname="h", version="0.1.0"
)
STATS = EndpointStats(requests=4, errors=1, last_error="too many", processing_ns=1000)


def answer(verb: Verb) -> dict[str, object]:
    found: dict[str, object] = json.loads(micro.answer(verb, WORKER, 1_000_000_000, STATS))
    return found


@pytest.mark.parametrize("verb", Verb)
def test_every_answer_names_the_service_and_its_type(verb: Verb) -> None:
    found = answer(verb)

    assert found["name"] == "trio-dagnats-worker"
    assert found["id"] == "w1"
    assert found["version"] == "0.1.0"
    assert found["type"] == f"io.nats.micro.v1.{verb.lower()}_response"
    assert found["metadata"] == {
        "hostname": "h",
        "pid": "42",
        "task_types": "a,b",
        "max_tasks": "5",
    }


def test_info_tells_where_the_endpoint_is() -> None:
    found = micro.read_info(json.dumps(answer(Verb.INFO)).encode())

    assert (found.worker_id, found.hostname, found.pid) == ("w1", "h", 42)
    assert found.subject == micro.endpoint_subject("w1")


def test_stats_count_requests() -> None:
    found = answer(Verb.STATS)

    assert found["started"] == "1970-01-01T00:00:01Z"
    assert found["endpoints"] == [
        {
            "name": "attempts",
            "subject": "trio-dagnats-worker.w1.attempts",
            "queue_group": "",
            "num_requests": 4,
            "num_errors": 1,
            "last_error": "too many",
            "processing_time": 1000,
            "average_processing_time": 250,
        }
    ]


@pytest.mark.parametrize(
    ("subject", "verb"),
    [
        ("$SRV.PING", Verb.PING),
        ("$SRV.INFO.trio-dagnats-worker", Verb.INFO),
        ("$SRV.STATS.trio-dagnats-worker.w1", Verb.STATS),
        ("$SRV.SCHEMA", None),
        ("trio-dagnats-worker.w1.attempts", None),
        ("$SRV", None),
    ],
)
def test_the_verb_stands_in_the_subject(subject: str, verb: Verb | None) -> None:
    assert micro.verb_of(subject) is verb


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"1", b'{"id":"x"}', b'{"id":"x","endpoints":[1]}', b"\xff"]
)
def test_what_is_no_info_is_refused(raw: bytes) -> None:
    with pytest.raises(WireError, match="INFO"):
        micro.read_info(raw)
