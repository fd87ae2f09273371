"""The recorded task messages, fed to this worker: what it sends must be what the Go worker sent."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
import trio.testing
from golden_files import SCENARIOS, load
from golden_replay import Replay, expected

from trio_dagnats.wire.events import EventType

HOW: dict[str, dict[str, object]] = {
    "cancel_queued": {"late": True, "only": "nobody"},
    "group_retry": {"only": "flakyg", "group": "gpu"},
}
LEFT_OUT = {
    "sticky": "sticky tasks are another issue's (contract 3.5)",
}


@dataclass(frozen=True)
class Difference:
    """What we deliberately send otherwise: ``subject | id`` of what is gone, and of what is new."""

    reason: str
    gone: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)


H = "history.$RUN | $RUN"
NOTE = "$KV.checkpoints.$RUN.p=note | "
PAUSE = Difference(
    "a handed-back pause keeps its attempt number, so that it costs no retry (design 8.1), and has "
    "a note beside the checkpoint (design 8.2)",
    gone=[f"{H}.p.step.started.2"],
    new=[f"{H}.p.step.started.1.d2", NOTE, NOTE, NOTE],
)
LOOP = (
    "ids of later iterations carry the iteration, and a continue carries its dispatch: with Go's "
)
LOOP += "ids an event within 5 s of an earlier iteration's is dropped (design 8.1, contract H14)"

DIFFERENCES = {
    "bad_task": Difference(
        "what is no task is terminated and kept for inspection, not acknowledged (contract H4)",
        gone=["ACK workers-echo delivery 1 | "],
        new=["ACK workers-echo delivery 1 | "],
    ),
    "cancel_running": Difference(
        "a cancelled run stops its handler, which then has no outcome (contract H18)",
        gone=[f"{H}.s.step.completed"],
    ),
    "control_chars": Difference(
        "control characters leave error texts: they wedge the engine's on_failure (contract H26)",
        gone=[f"{H}.f.step.failed"],
        new=[f"{H}.f.step.failed"],
    ),
    "killed": Difference(
        "a redelivery keeps its attempt number, so that it costs no retry (design 8.1)",
        gone=[f"{H}.s.step.started.2"],
        new=[f"{H}.s.step.started.1.d2"],
    ),
    "loop": Difference(
        LOOP,
        gone=[
            *(f"{H}.l.continue.{n}.$NANOS" for n in range(3)),
            *[f"{H}.l.step.started.1"] * 3,
            f"{H}.l.step.completed",
        ],
        new=[
            *(f"{H}.l.continue.{n}.{n + 1}" for n in range(3)),
            *(f"{H}.l.step.started.1.i{n}" for n in (1, 2, 3)),
            f"{H}.l.step.completed.i3",
        ],
    ),
    "loop_bound": Difference(
        LOOP,
        gone=[
            *(f"{H}.l.continue.{n}.$NANOS" for n in range(3)),
            *[f"{H}.l.step.started.1"] * 2,
        ],
        new=[
            *(f"{H}.l.continue.{n}.{n + 1}" for n in range(3)),
            *(f"{H}.l.step.started.1.i{n}" for n in (1, 2)),
        ],
    ),
    "nothing": Difference(
        "a handler that returns without an outcome completes; Go's step runs on (contract H5)",
        new=[f"{H}.s.step.completed"],
    ),
    "pause": PAUSE,
    "pause_retry": PAUSE,
    "timeout": Difference(
        "the engine's step timeout stops the handler (contract H18)",
        gone=[f"{H}.s.step.completed"],
    ),
    "timeout_retry": Difference(
        "the step timeout stops the first handler, the run's end the second (contract H18)",
        gone=[f"{H}.s.step.completed", f"{H}.s.step.completed.2"],
    ),
    "typed_bad": Difference(
        "the text of bad input is pydantic's, not Go's; it names the field all the same",
        gone=[f"{H}.t.step.failed"],
        new=[f"{H}.t.step.failed"],
    ),
}


def keys(lines: Counter[str]) -> list[str]:
    """Return subjects and ids, without bodies."""
    return sorted(" | ".join(line.split(" | ", 2)[:2]) for line in lines.elements())


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name not in LEFT_OUT])
async def test_the_worker_sends_what_was_recorded(
    name: str, mock_clock: trio.testing.MockClock
) -> None:
    scenario = load(name)
    replay = Replay(scenario, mock_clock)

    if name == "killed":
        await replay.run_killed()
    else:
        await replay.run(**HOW.get(name, {}))  # type: ignore[arg-type]  # the table above

    theirs, ours = expected(scenario), replay.lines()
    known = DIFFERENCES.get(name, Difference(""))
    assert keys(theirs - ours) == sorted(known.gone)
    assert keys(ours - theirs) == sorted(known.new)


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_delivery_in_a_transcript_went_to_nobody(name: str) -> None:
    """A recorder that listens to everything takes tasks from dead workers' inboxes (H39)."""
    messages = load(name).messages
    acks = [sent.subject.split() for sent in messages if sent.subject.startswith("ACK ")]
    started = sum(sent.type == EventType.STEP_STARTED for sent in messages)

    assert max((int(count) for *_, count in acks), default=0) <= max(1, started)


def test_every_difference_has_a_reason_and_a_scenario() -> None:
    assert set(DIFFERENCES) | set(LEFT_OUT) <= set(SCENARIOS)
    assert all(difference.reason for difference in DIFFERENCES.values())


def test_scenarios_with_tasks_have_messages_to_compare() -> None:
    empty = {name for name in SCENARIOS if not expected(load(name))}

    assert empty == {"group"}  # nobody serves its group
