"""The recorded events, fed to the local engine's core: it must dispatch what the engine did."""

import json
from dataclasses import dataclass, field

import pytest
from golden_engine import Feeding, expected, outline, refusal
from golden_files import SCENARIOS, load
from test_golden_worker import keys

from trio_dagnats.local.engine.core.state import RunState

LATER = {"capability": "the capability 'control-plane'", "sticky": "sticky"}
"""Scenarios that need what the local engine refuses (for now), and what it says."""
DONE = [name for name in SCENARIOS if name not in LATER]


@dataclass(frozen=True)
class Difference:
    """What this engine deliberately sends otherwise: ``subject | id``, gone and new."""

    reason: str
    gone: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    final: bool = False
    """Whether the run's last snapshot differs, too."""


DIFFERENCES = {
    "bad_task": Difference(
        "the bad message was put into the queue by hand, not by the engine",
        gone=["task.echo.zzz | "],
    ),
    "control_chars": Difference(
        "the handler of a failure is started whatever characters are in the error; the DagNats "
        "engine cannot write its task (contract H26)",
        new=["task.echo.$RUN | $RUN.h.queued"],
    ),
    "group_retry": Difference(
        "a retry keeps its worker group; the DagNats engine loses it (contract H11)",
        gone=["task.flakyg.$RUN | $RUN.g.retry_backoff.1"],
        new=["task.flakyg.gpu.$RUN | $RUN.g.retry_backoff.1"],
    ),
    "map_empty": Difference(
        "a map over an empty list completes; the DagNats engine's runs for ever (contract H10)",
        new=["history.$RUN | $RUN.workflow.completed"],
        final=True,
    ),
    "map_fail": Difference(
        "the error of a map names the instance's error, not the raw payload around it", final=True
    ),
    "on_failure_no_aux": Difference(
        "a failure handler waits for a failure, with aux_steps or without; the DagNats engine "
        "starts it at once and drops it when it is needed (contract H9). The timeout is another "
        "run's, which was recorded, too",
        gone=[
            "history.$CHILD | $CHILD.w.step.wait.timeout",
            "history.$RUN | $RUN.h.step.queued.1",
            "task.echo.$RUN | $RUN.h.queued",
        ],
        final=True,
    ),
    "run_timeout": Difference(
        "a run's deadline has a timer and is told to the history; the DagNats engine looks at it "
        "only when an event arrives, and tells nobody (contract H27)",
        new=[
            "history.$RUN | $RUN.workflow.cancelled",
            "sleep.$RUN.run_timeout | $RUN.run_timeout",
        ],
    ),
}


@pytest.mark.parametrize("name", DONE)
def test_the_engine_sends_what_was_recorded(name: str) -> None:
    scenario = load(name)
    feeding = Feeding(scenario)

    feeding.run()

    theirs, ours = expected(scenario), feeding.lines
    known = DIFFERENCES.get(name, Difference(""))
    assert keys(theirs - ours) == sorted(known.gone)
    assert keys(ours - theirs) == sorted(known.new)


@pytest.mark.parametrize("name", DONE)
def test_the_run_ends_as_recorded(name: str) -> None:
    scenario = load(name)
    feeding = Feeding(scenario)

    feeding.run()

    same = outline(feeding.state.run.to_wire()) == outline(scenario.final)
    assert same is not DIFFERENCES.get(name, Difference("")).final


@pytest.mark.parametrize("name", DONE)
def test_a_stored_run_is_read_as_it_was(name: str) -> None:
    feeding = Feeding(load(name))

    feeding.run()

    read = RunState.read(feeding.state.to_bytes())
    assert read.run == feeding.state.run
    assert json.loads(read.to_bytes()) == json.loads(feeding.state.to_bytes())


@pytest.mark.parametrize("name", LATER)
def test_what_is_not_done_is_refused_by_name(name: str) -> None:
    assert LATER[name] in refusal(load(name))


def test_every_difference_has_a_reason() -> None:
    assert set(DIFFERENCES) <= set(DONE)
    assert all(difference.reason for difference in DIFFERENCES.values())
