import base64
import json

import pytest

from trio_dagnats.errors import WireError
from trio_dagnats.wire.definitions.workflow import WorkflowDef
from trio_dagnats.wire.run import RunStatus, StepStatus, WorkflowRun


def run(status: str = "completed", **outputs: object) -> WorkflowRun:
    """Return a run whose steps completed with these outputs."""
    steps = {
        step: {"status": "completed", "output": base64.b64encode(json.dumps(o).encode()).decode()}
        for step, o in outputs.items()
    }
    raw = {"run_id": "r", "workflow_id": "w", "status": status, "steps": steps, "new": 1}
    return WorkflowRun.read(json.dumps(raw).encode())


def flow(**depends: list[str]) -> WorkflowDef:
    """Return a definition of steps by their dependencies."""
    steps = [{"id": step, "task": "t", "depends_on": on} for step, on in depends.items()]
    return WorkflowDef.read({"name": "w", "steps": steps})


def test_outputs_are_decoded() -> None:
    """The wire has base64 of JSON; readers get values."""
    assert run(a={"x": 1}).steps["a"].value() == {"x": 1}
    assert run(a=1).steps["a"].raw_output() == b"1"


def test_a_single_last_step_gives_its_output() -> None:
    """The step nobody depends on speaks for the run."""
    assert run(a=1, b=2).output(flow(a=[], b=["a"])) == 2


def test_several_last_steps_give_an_object() -> None:
    """Several last steps are told apart by id."""
    assert run(a=1, b=2, c=3).output(flow(a=[], b=["a"], c=["a"])) == {"b": 2, "c": 3}


def test_a_failed_step_is_named_with_its_error() -> None:
    """The step that ended a run is found, if there is one."""
    raw = {
        "run_id": "r",
        "workflow_id": "w",
        "status": "failed",
        "steps": {"a": {"status": "failed", "error": "boom"}},
    }
    assert WorkflowRun.read(json.dumps(raw).encode()).failed_step() == ("a", "boom")
    assert run().failed_step() == ("", "")


@pytest.mark.parametrize("status", list(RunStatus))
def test_only_pending_and_running_go_on(status: RunStatus) -> None:
    """Every other status is terminal."""
    assert status.is_terminal is (status.value not in {"pending", "running"})


@pytest.mark.parametrize("status", list(StepStatus))
def test_dependents_wait_for_done_steps(status: StepStatus) -> None:
    """Completed, skipped and recovered steps let their dependents go on."""
    assert status.is_done is (status.value in {"completed", "skipped", "recovered"})


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"run_id":"r","workflow_id":"w","status":"odd"}'])
def test_what_is_no_run_is_refused(raw: bytes) -> None:
    """A value that is no snapshot is named."""
    with pytest.raises(WireError, match="not a run"):
        WorkflowRun.read(raw)
