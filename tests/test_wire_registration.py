import json

import pytest

from trio_dagnats.errors import WireError
from trio_dagnats.wire.registration import WorkerRegistration, is_live, status_body

GO = (
    b'{"worker_id":"worker-4f1c","task_types":["fetch"],"language":"go","transport":"nats",'
    b'"max_tasks":1,"pid":4242,"hostname":"h","version":"dev","last_seen":"2026-08-07T12:00:00Z",'
    b'"new":1}'
)


def test_a_go_workers_entry_is_read() -> None:
    """Entries of other SDKs are read, unknown keys ignored."""
    entry = WorkerRegistration.from_bytes(GO)
    assert (entry.language, entry.task_types, entry.pid) == ("go", ("fetch",), 4242)


def test_our_entry_has_the_contracts_keys() -> None:
    """What is not set is left out; the rest has the contract's names."""
    entry = WorkerRegistration(worker_id="w", task_types=("a", "b"), max_tasks=100)
    written = json.loads(entry.to_bytes())
    assert written["language"] == "python"
    assert written["transport"] == "nats"
    assert "metadata" not in written
    assert WorkerRegistration.from_bytes(entry.to_bytes()) == entry


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b'{"worker_id":1,"task_types":[]}'])
def test_what_is_no_entry_is_refused(raw: bytes) -> None:
    """A value that is no registration is named, not guessed."""
    with pytest.raises(WireError, match="not a worker's entry"):
        WorkerRegistration.from_bytes(raw)


def test_liveness_goes_by_sixty_seconds() -> None:
    """An entry is alive for less than 60 seconds after its revision."""
    assert is_live(0, 59_999_999_999)
    assert not is_live(0, 60_000_000_000)


def test_status_is_the_contracts_object() -> None:
    """The status names the worker and its skipped tasks."""
    assert json.loads(status_body("w", 3)) == {"worker_id": "w", "cancelled_tasks_skipped": 3}
