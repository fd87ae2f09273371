import json

import pytest

from trio_dagnats.errors import UsageError
from trio_dagnats.wire.definitions.retry import RetryPolicy, Strategy
from trio_dagnats.wire.definitions.steps import StepType
from trio_dagnats.wire.definitions.workflow import WorkflowDef

ONE: dict[str, object] = {"id": "a", "task": "t"}
MATCH = {"left": "id", "op": "eq", "right": "input.id"}


def flow(*steps: dict[str, object], **keys: object) -> dict[str, object]:
    """Return a definition of these steps."""
    return {"name": "w", "steps": list(steps), **keys}


def test_a_definition_is_written_with_the_keys_that_go_writes() -> None:
    """Task, timeout and type stand always, the rest when set; aux_steps are filled in."""
    read = WorkflowDef.read(flow({**ONE, "on_failure": "h"}, {"id": "h", "task": "t2"}))
    assert json.loads(read.to_bytes()) == {
        "name": "w",
        "version": "1",
        "steps": [
            {"id": "a", "task": "t", "timeout": 0, "type": "normal", "on_failure": "h"},
            {"id": "h", "task": "t2", "timeout": 0, "type": "normal"},
        ],
        "aux_steps": {"h": True},
    }


@pytest.mark.parametrize(
    ("definition", "text"),
    [
        (flow(), "steps"),
        ({"name": "", "steps": [ONE]}, "name"),
        ({"name": "a b", "steps": [ONE]}, "name"),
        (flow({"id": "", "task": "t"}), "id"),
        (flow({"id": "a.b", "task": "t"}), "id"),
        (flow({"id": "a"}), "needs a task"),
        (flow({"id": "a", "task": "t", "type": "magic"}), "type"),
        (flow(ONE, ONE), "two steps have the id 'a'"),
        (flow({**ONE, "depends_on": ["z"]}), "'z', which is no step"),
        (flow({**ONE, "on_failure": "z"}), "'z', which is no step"),
        (
            flow({**ONE, "depends_on": ["b"]}, {"id": "b", "task": "t", "depends_on": ["a"]}),
            "circle",
        ),
        (flow({**ONE, "type": "agent_loop"}), "max_iterations"),
        (
            flow(ONE, cancel_on=[{"event": "e", "match": {**MATCH, "right": "step.a.output.b"}}]),
            "match.right must be input.<path>",
        ),
        (flow(ONE, cancel_on=[{"event": "e", "match": MATCH}] * 6), "cancel_on"),
        (flow(ONE, singleton={"mode": "wait"}), "singleton.mode"),
        (flow(ONE, priority={"key": "k", "rules": {"a": 601}}), "priority.rules.a"),
        (flow(ONE, priority={"key": "k", "rules": {}}), "priority.rules"),
        (flow({**ONE, "type": "map", "config": {"max_items": 1}}), "one dependency"),
        (flow({"id": "a", "type": "sleep", "config": {}}), "exactly one"),
        (flow({"id": "a", "type": "sleep", "config": {"duration": "1s"}}), "duration"),
        (flow({**ONE, "timeout": "30s"}), "nanoseconds"),
        (flow({**ONE, "timeout": -1}), "timeout"),
        (flow({**ONE, "retry": {"max_attempts": 1, "strategy": "magic"}}), "strategy"),
        (
            flow({**ONE, "retry": {"max_attempts": 1, "initial_delay": 2, "max_delay": 1}}),
            "max_delay",
        ),
        (flow({**ONE, "skip_if": {"step_id": "z", "field": "f", "op": "=="}}), "depends_on"),
        (flow({**ONE, "rate_limit": {"limit": 1}}), "period"),
        (
            flow(
                {
                    **ONE,
                    "rate_limit": {"limit": 1, "period": 1},
                    "keyed_rate_limit": {"key": "k", "limit": 1, "period": 1, "units": 1},
                }
            ),
            "both rate limits",
        ),
        (flow({**ONE, "taks": "t"}), "taks"),
        (flow(ONE, tiemout=1), "tiemout"),
        (
            flow(
                {**ONE, "on_failure": "h"},
                {"id": "h", "task": "t", "depends_on": ["b"]},
                {"id": "b", "task": "t"},
            ),
            "must not have depends_on",
        ),
    ],
)
def test_what_the_engine_could_not_run_is_refused_by_name(
    definition: dict[str, object], text: str
) -> None:
    """Several of these end the real engine's process, so none of them is ever sent."""
    with pytest.raises(UsageError, match=text):
        WorkflowDef.read(definition)


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null"])
def test_what_is_no_json_object_is_refused(raw: bytes) -> None:
    """Bytes that are no object are refused, too."""
    with pytest.raises(UsageError, match="not a workflow"):
        WorkflowDef.read(raw)


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        (RetryPolicy(max_attempts=3, initial_delay=5_000_000), [5, 5, 5]),
        (
            RetryPolicy(max_attempts=3, strategy=Strategy.LINEAR, initial_delay=5_000_000),
            [5, 10, 15],
        ),
        (
            RetryPolicy(
                max_attempts=3,
                strategy=Strategy.EXPONENTIAL,
                initial_delay=5_000_000,
                multiplier=2,
                max_delay=12_000_000,
            ),
            [5, 10, 12],
        ),
        (RetryPolicy(max_attempts=3), [1, 1, 1]),
        (
            RetryPolicy(max_attempts=3, strategy=Strategy.EXPONENTIAL, initial_delay=5_000_000),
            [5, 1, 1],
        ),
    ],
)
def test_delays_follow_the_engines_formula(policy: RetryPolicy, delays: list[int]) -> None:
    """Fixed, linear and exponential, bounded; an absent multiplier is 0, as in the engine."""
    assert [policy.delay_ns(n) // 1_000_000 for n in (1, 2, 3)] == delays


def test_a_huge_exponent_ends_at_the_engines_hour() -> None:
    """Numbers too large for a float are the bound, not a crash."""
    policy = RetryPolicy(
        max_attempts=9, strategy=Strategy.EXPONENTIAL, initial_delay=10**9, multiplier=1e300
    )
    assert policy.delay_ns(50) == 3_600_000_000_000


def test_the_step_policy_wins_over_the_workflows() -> None:
    """Step, then workflow, then the legacy key, then none."""
    own = {"max_attempts": 1}
    read = WorkflowDef.read(
        flow({**ONE, "retry": own}, {"id": "b", "task": "t"}, default_retry={"max_attempts": 7})
    )
    assert [p.max_attempts for s in read.steps if (p := read.retry_of(s))] == [1, 7]
    old = WorkflowDef.read(flow({**ONE, "retries": 2}, {"id": "b", "task": "t"}))
    assert old.retry_of(old.step("a")) == RetryPolicy(max_attempts=2, initial_delay=5_000_000_000)
    assert old.retry_of(old.step("b")) is None


def test_configs_are_typed() -> None:
    """Loop, map and sleep have their bounds as numbers."""
    read = WorkflowDef.read(
        flow(
            {**ONE, "type": "agent_loop", "config": {"max_iterations": 3, "budget_warn_at": 2}},
            {
                "id": "m",
                "task": "t",
                "type": "map",
                "depends_on": ["a"],
                "config": {"max_items": 9},
            },
            {"id": "s", "type": "sleep", "config": {"duration": 5}},
        )
    )
    assert read.step("a").loop.max_iterations == 3
    assert read.step("m").map.max_items == 9
    assert read.step("s").sleep.duration == 5
    assert read.step("s").type is StepType.SLEEP


def test_an_unknown_step_is_a_key_error() -> None:
    """Asking for a step that is not there fails."""
    with pytest.raises(KeyError):
        WorkflowDef.read(flow(ONE)).step("z")
