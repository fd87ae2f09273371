"""The local engine's pure rules, by enumeration, and its limits in virtual time."""

import gc
import json

import pytest
import trio
from engine_flows import make_worker
from trio.testing import MockClock

from trio_dagnats import Client, Run, TaskContext, Worker, Workflow
from trio_dagnats.client import Priority, Rate, RunStatus, StepStatus
from trio_dagnats.errors import EngineError, UsageError
from trio_dagnats.local import LocalEngine
from trio_dagnats.local.engine.core.ratelimit import TokenBucket
from trio_dagnats.local.engine.core.state import RunState
from trio_dagnats.local.engine.core.values.paths import find, matches, offset_of, printed
from trio_dagnats.local.engine.core.values.schema import mismatch, unknown_types
from trio_dagnats.local.engine.rates import bucket_key
from trio_dagnats.testing import Harness

S = 1_000_000_000
SCHEMA: dict[str, object] = {
    "type": "object",
    "required": ["n"],
    "properties": {"n": {"type": "number"}, "list": {"type": "array"}},
}


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"n": 1}, ""),
        ({"n": 1.5, "list": [], "more": None}, ""),
        ({}, "lacks the field 'n'"),
        ({"n": True}, "n must be number, not boolean"),
        ({"n": 1, "list": {}}, "list must be array, not object"),
        ("text", "must be object, not string"),
        (None, "must be object, not null"),
    ],
)
def test_an_input_that_does_not_fit_is_told_where(given: object, problem: str) -> None:
    found = mismatch(SCHEMA, given)

    assert problem in found
    assert bool(problem) == bool(found)


def test_without_a_schema_everything_fits() -> None:
    assert not mismatch(None, object())


def test_a_type_that_no_value_has_is_found() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}

    assert list(unknown_types(schema)) == ["the type 'integer' of n"]


@pytest.mark.parametrize(
    ("path", "found"),
    [("a.b", (True, 1)), ("a.c", (False, None)), ("a.b.c", (False, None)), ("x", (True, None))],
)
def test_a_path_is_followed_through_objects(path: str, found: tuple[bool, object]) -> None:
    assert find(path, b'{"a":{"b":1},"x":null}') == found


def test_nothing_has_no_paths() -> None:
    assert find("a", b"") == (False, None)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [(5, 5.0, True), (5, "5", True), (True, "true", True), (5, 6, False), (1, True, False)],
)
def test_values_are_compared_as_they_are_printed(
    left: object, right: object, *, same: bool
) -> None:
    assert (printed(left) == printed(right)) is same
    assert matches("id", right, {"id": left}) is same


def test_an_event_without_the_field_does_not_match() -> None:
    assert not matches("id", None, {})
    assert not matches("id", 1, "text")


def waits(count: int, limit: int, every_ns: int = 0, units: int = 1) -> list[float]:
    """Take from a new bucket of a second; return the seconds to wait."""
    bucket, found = TokenBucket.full(limit, S, 0), []
    for number in range(count):
        bucket, wait_ns = bucket.take(units, limit, S, number * every_ns)
        found.append(wait_ns / S)
    return found


def test_the_first_go_at_once_and_the_rest_one_after_another() -> None:
    assert waits(5, 2) == [0, 0, 0.5, 1.0, 1.5]


def test_whoever_asks_slowly_enough_never_waits() -> None:
    assert waits(50, 2, every_ns=S // 2) == [0] * 50


def test_a_task_may_take_several_units() -> None:
    assert waits(3, 4, units=4) == [0, 1.0, 2.0]


def test_turns_are_never_more_than_the_limit_in_a_period() -> None:
    for limit in (1, 3, 7):
        asked = [i * S // 13 for i in range(100)]
        bucket, due = TokenBucket.full(limit, S, 0), []
        for now_ns in asked:
            bucket, wait_ns = bucket.take(1, limit, S, now_ns)
            due.append(now_ns + wait_ns)
        burst = limit  # a full bucket lets so many go beside those of the period
        for start in due:
            assert sum(start <= other < start + S for other in due) <= limit + burst


def test_a_limit_that_was_changed_holds_at_once() -> None:
    bucket, _ = TokenBucket.full(100, S, 0).take(1, 1, S, 0)

    assert bucket.take(1, 1, S, 0)[1] == S


def test_keys_that_no_bucket_takes_stand_as_hashes() -> None:
    assert bucket_key("llm", "_global") == "llm._global"
    assert bucket_key("a.b", "x y").count(".") == 1
    assert bucket_key("a", "x y") != bucket_key("a", "x z")


class Meter:
    """A worker that counts how many tasks run at once, and when they begin."""

    def __init__(self, harness: Harness) -> None:
        self.worker = Worker(harness.broker, grace=0)
        self.worker.handle("work", self.work)
        self.now = self.most = 0
        self.begun: list[float] = []

    async def work(self, ctx: TaskContext) -> None:
        self.begun.append(trio.current_time())
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await trio.sleep(1)
        finally:
            self.now -= 1


def wide(max_steps: int) -> Workflow:
    workflow = Workflow("w", max_steps=max_steps)
    for number in range(6):
        workflow.step(f"s{number}", "work")
    return workflow


async def runs_of(client: Client, workflow: Workflow, count: int) -> list[Run]:
    """Run a workflow several times to the end."""
    await client.register(workflow)
    runs = [await client.start("w", {"n": number}) for number in range(count)]
    for run in runs:
        assert (await run.wait(timeout=600)).status is RunStatus.COMPLETED
    return runs


@pytest.mark.parametrize("most", [1, 2, 4])
async def test_no_more_steps_of_a_run_go_on_than_max_steps(
    autojump_clock: MockClock, harness: Harness, most: int
) -> None:
    meter, broker = Meter(harness), harness.broker
    async with LocalEngine(broker), Client(broker) as client, meter.worker:
        await runs_of(client, wide(most), 1)

    assert meter.most == most


@pytest.mark.parametrize("most", [1, 3])
async def test_no_more_runs_go_on_than_max_runs(
    autojump_clock: MockClock, harness: Harness, most: int
) -> None:
    meter, broker = Meter(harness), harness.broker
    workflow = Workflow("w", max_runs=most)
    workflow.step("a", "work")
    async with LocalEngine(broker), Client(broker) as client, meter.worker:
        await runs_of(client, workflow, 6)

    assert meter.most == most


async def test_no_more_tasks_of_a_type_are_out_than_allowed_in_all_runs(
    autojump_clock: MockClock, harness: Harness
) -> None:
    meter, broker = Meter(harness), harness.broker
    workflow = Workflow("w")
    for name in "abc":
        workflow.step(name, "work", max_at_once=2)
    async with LocalEngine(broker), Client(broker) as client, meter.worker:
        await runs_of(client, workflow, 3)

    assert meter.most == 2


async def test_tasks_go_at_the_rate_that_is_allowed(
    autojump_clock: MockClock, harness: Harness
) -> None:
    meter, broker = Meter(harness), harness.broker
    workflow = Workflow("w")
    workflow.step("a", "work", rate=Rate(1, 10))
    async with LocalEngine(broker), Client(broker) as client, meter.worker:
        await runs_of(client, workflow, 4)

    gaps = [later - sooner for sooner, later in zip(meter.begun, meter.begun[1:], strict=False)]
    assert all(gap == pytest.approx(10, abs=0.5) for gap in gaps)


async def test_a_pending_run_that_is_cancelled_gives_its_place_up(
    autojump_clock: MockClock, harness: Harness
) -> None:
    meter, broker = Meter(harness), harness.broker
    workflow = Workflow("w", max_runs=1)
    workflow.step("a", "work")
    async with LocalEngine(broker), Client(broker) as client:
        await client.register(workflow)
        first, second, third = [await client.start("w") for _ in range(3)]
        await trio.sleep(1)
        body = json.dumps({"type": "workflow.cancelled", "run_id": second.id}).encode()
        await broker.store(f"history.{second.id}", body, deadline=trio.current_time() + 1)
        async with meter.worker:
            ended = [(await run.wait(timeout=60)).status for run in (first, second, third)]

    done = RunStatus.COMPLETED
    assert ended == [done, RunStatus.CANCELLED, done]


async def test_a_keyed_rate_without_its_key_fails_the_run(
    autojump_clock: MockClock, harness: Harness
) -> None:
    workflow = Workflow("w")
    workflow.step("a", "work", rate=Rate(1, 1, key="who"))
    async with LocalEngine(harness.broker), Client(harness.broker) as client:
        await client.register(workflow)
        ended = await (await client.start("w", {})).wait(timeout=10)

    assert "has no 'who'" in ended.failed_step()[1]


async def test_one_idempotency_key_gives_one_run(
    autojump_clock: MockClock, harness: Harness
) -> None:
    workflow = Workflow("w", idempotency_key="order.id")
    workflow.step("a", "work")
    found: list[str] = []
    async with LocalEngine(harness.broker), Client(harness.broker) as client:
        await client.register(workflow)

        async def start(order: int) -> None:
            run = await client.start("w", {"order": {"id": order}})
            found.append(run.id)

        async with trio.open_nursery() as nursery:
            for order in (1, 1, 1, 2):
                nursery.start_soon(start, order)
        await trio.sleep(1)
        stored = await client.runs()

    assert len(set(found)) == len(stored) == 2


async def test_a_key_whose_first_request_died_begins_the_run_the_next_time(
    autojump_clock: MockClock, harness: Harness
) -> None:
    workflow = Workflow("w", idempotency_key="id")
    workflow.step("a", "work")
    broker = harness.broker
    async with LocalEngine(broker), Client(broker) as client:
        await client.register(workflow)
        run = await client.start("w", {"id": 1})
        (entry,) = await broker.kv_entries("idempotency_keys", deadline=trio.current_time() + 1)
        later = b"f" * 32
        deadline = trio.current_time() + 1
        await broker.kv_put("idempotency_keys", entry.key, later, deadline=deadline)
        again = await client.start("w", {"id": 1})
        await trio.sleep(1)

        assert again.id == later.decode() != run.id
        assert await again.status() is RunStatus.RUNNING


async def test_an_input_is_checked_before_a_run_begins(
    autojump_clock: MockClock, harness: Harness
) -> None:
    workflow = Workflow("w", input_schema=SCHEMA)
    workflow.step("a", "work")
    async with LocalEngine(harness.broker), Client(harness.broker) as client:
        await client.register(workflow)
        with pytest.raises(EngineError, match="lacks the field 'n'"):
            await client.start("w", {})
        assert await client.runs() == []


async def test_compensation_goes_backwards_one_at_a_time_and_waits_for_what_still_goes(
    autojump_clock: MockClock, harness: Harness
) -> None:
    order: list[str] = []
    worker = Worker(harness.broker, grace=0)

    @worker.handle("do")
    async def do(ctx: TaskContext) -> str:
        await trio.sleep(20 if ctx.step_id == "slow" else 1)
        if ctx.step_id == "bad":
            await ctx.fail_permanent("no")
        return ctx.step_id

    @worker.handle("undo")
    async def undo(ctx: TaskContext) -> None:
        given = json.loads(ctx.input)
        order.append(f"{given['original_output']} for {given['trigger_step']}")
        await trio.sleep(1)

    workflow = Workflow("w")
    for name, after in (("a", ""), ("b", "a"), ("c", "b"), ("slow", "b")):
        workflow.step(name, "do", after=after or (), compensate=f"undo-{name}")
        workflow.step(f"undo-{name}", "undo")
    workflow.step("bad", "do", after="c")
    async with LocalEngine(harness.broker), Client(harness.broker) as client, worker:
        await client.register(workflow)
        ended = await (await client.start("w")).wait(timeout=100)

    assert ended.status is RunStatus.COMPENSATED
    assert order == [f"{name} for bad" for name in ("c", "b", "a", "slow")]


async def test_a_child_is_cancelled_with_its_parent_but_not_when_detached(
    autojump_clock: MockClock, harness: Harness
) -> None:
    child, parent = Workflow("child"), Workflow("parent")
    child.step("a", "work")
    for name in ("held", "free"):
        parent.sub_workflow(name, "child", detach=name == "free")
    parent.sleep("nap", 100)
    async with LocalEngine(harness.broker), Client(harness.broker) as client:
        for workflow in (child, parent):
            await client.register(workflow)
        run = await client.start("parent")
        await trio.sleep(1)
        await run.cancel()
        ended = await run.wait(timeout=10)
        await trio.sleep(1)
        ids = {name: ended.steps[name].child_run_id for name in ("held", "free")}
        found = {name: await client.run(child_id).status() for name, child_id in ids.items()}

    assert found == {"held": RunStatus.CANCELLED, "free": RunStatus.RUNNING}


async def test_children_may_be_two_levels_deep(autojump_clock: MockClock, harness: Harness) -> None:
    workflow = Workflow("again")
    workflow.sub_workflow("deeper", "again")
    async with LocalEngine(harness.broker), Client(harness.broker) as client:
        await client.register(workflow)
        ended = await (await client.start("again")).wait(timeout=10)

    assert "2 levels deep" in ended.steps["deeper"].error


async def test_an_unknown_child_fails_its_parent(
    autojump_clock: MockClock, harness: Harness
) -> None:
    workflow = Workflow("w")
    workflow.sub_workflow("s", "nowhere")
    async with LocalEngine(harness.broker), Client(harness.broker) as client:
        await client.register(workflow)
        ended = await (await client.start("w")).wait(timeout=10)

    assert "'nowhere' is not registered" in ended.failed_step()[1]


@pytest.mark.parametrize("event", [b"", b"{not json", b"[]", b'{"id":2}'])
async def test_events_that_do_not_match_leave_the_wait_alone(
    autojump_clock: MockClock, harness: Harness, event: bytes
) -> None:
    workflow = Workflow("w")
    workflow.wait_for_event("e", "paid", where="id", equals="input.id", timeout=100)
    broker = harness.broker
    async with LocalEngine(broker), Client(broker) as client:
        await client.register(workflow)
        run = await client.start("w", {"id": 1})
        await trio.sleep(1)
        for body in (event, b'{"id":1}'):
            await broker.store("event.paid", body, deadline=trio.current_time() + 1)

        assert await run.output(timeout=10) == {"id": 1}


async def test_an_event_that_came_before_the_wait_is_not_taken(
    autojump_clock: MockClock, harness: Harness
) -> None:
    workflow = Workflow("w")
    workflow.wait_for_event("e", "paid", where="id", equals="input.id", timeout=5)
    broker = harness.broker
    async with LocalEngine(broker), Client(broker) as client:
        await client.register(workflow)
        await broker.store("event.paid", b'{"id":1}', deadline=trio.current_time() + 1)
        await trio.sleep(1)
        run = await client.start("w", {"id": 1})

        assert await run.output(timeout=10) == {"timeout": True}


@pytest.mark.parametrize(
    ("plan", "problem"),
    [
        ({"steps": [{"id": "a", "task": "other"}]}, "not allowed"),
        ({"steps": [{"id": str(n), "task": "work"} for n in range(4)]}, "max_steps"),
        ({"steps": [{"id": "a"}]}, "needs a task"),
        ({"steps": [{"id": "a.b", "task": "work"}]}, "letters"),
        ({"steps": [{"id": "a", "task": "work", "depends_on": ["z"]}]}, "'p.z', which is no step"),
        ({"steps": [{"id": "a", "task": "work", "depends_on": ["a"]}]}, "circle"),
        ({"steps": 7}, "not a plan"),
    ],
)
async def test_a_bad_plan_fails_the_run_and_says_why(
    autojump_clock: MockClock, harness: Harness, plan: object, problem: str
) -> None:
    worker = Worker(harness.broker, grace=0)

    @worker.handle("p")
    async def planned(ctx: TaskContext) -> object:
        return plan

    workflow = Workflow("w")
    workflow.planner("p", max_steps=3, max_depth=2, allowed_tasks=["work"])
    async with LocalEngine(harness.broker), Client(harness.broker) as client, worker:
        await client.register(workflow)
        ended = await (await client.start("w")).wait(timeout=10)

    assert problem in ended.failed_step()[1]


async def test_a_sleep_may_end_at_a_time_in_the_input(
    autojump_clock: MockClock, harness: Harness
) -> None:
    workflow = Workflow("w")
    workflow.sleep_until("nap", "at")
    async with LocalEngine(harness.broker), Client(harness.broker) as client:
        await client.register(workflow)
        good = await client.start("w", {"at": "2026-08-06T07:00:00Z"})
        bad = await client.start("w", {"at": "soon"})

        assert (await good.wait(timeout=86_400 * 365)).steps["nap"].status is StepStatus.COMPLETED
        assert "no time" in (await bad.wait(timeout=10)).failed_step()[1]


def test_more_units_than_the_limit_are_refused() -> None:
    workflow = Workflow("w")
    workflow.step("a", "work", rate=Rate(1, 1, key="k", units=2))

    with pytest.raises(UsageError, match="units 2 are more than the limit 1"):
        workflow.build()


async def test_the_engine_holds_the_runs_that_go_on_and_no_others(
    autojump_clock: MockClock, harness: Harness
) -> None:
    quick, waiting = Workflow("quick"), Workflow("waiting")
    quick.step("a", "echo")
    waiting.step("a", "unserved")
    worker = make_worker(harness.broker)
    async with LocalEngine(harness.broker), Client(harness.broker) as client, worker:
        await client.register(quick)
        await client.register(waiting)
        going = await client.start("waiting")
        for _ in range(20):
            await (await client.start("quick")).wait(timeout=10)
        await trio.sleep(1)
        gc.collect()
        held = [one for one in gc.get_objects() if isinstance(one, RunState)]

        assert [state.run.run_id for state in held] == [going.id]


PRIORITY = Priority("plan", {"gold": 100, "slow": -100, "5": 50}, default=10)


@pytest.mark.parametrize(
    ("given", "offset"),
    [
        ({"plan": "gold"}, 100),
        ({"plan": "slow"}, -100),
        ({"plan": 5}, 50),
        ({"plan": "other"}, 10),
        ({}, 0),
        (None, 0),
    ],
)
def test_a_priority_is_looked_up_in_the_input(given: object, offset: int) -> None:
    definition = Workflow("w", priority=PRIORITY)
    definition.sleep("a", 1)

    assert offset_of(definition.build().priority, given) == offset


async def test_runs_that_wait_go_by_their_priority_and_then_by_their_time(
    autojump_clock: MockClock, harness: Harness
) -> None:
    workflow = Workflow("w", max_runs=1, priority=PRIORITY)
    workflow.sleep("a", 10)
    async with LocalEngine(harness.broker), Client(harness.broker) as client:
        await client.register(workflow)
        for plan in ("first", "slow", "one", "two", "gold"):
            await client.start("w", {"plan": plan})
            await trio.sleep(0.1)
        await trio.sleep(100)
        ended = sorted(await client.runs(), key=lambda run: run.completed_at)

        assert [run.input for run in ended] == [
            {"plan": plan} for plan in ("first", "gold", "one", "two", "slow")
        ]
        assert [run.priority_offset for run in ended] == [10, 100, 10, 10, -100]
