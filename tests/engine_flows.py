"""Workflows for the local engine, one for each thing that it does, and how they end."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

import trio

from trio_dagnats import Client, Continue, Fatal, Retry, Run, TaskContext, Worker, Workflow
from trio_dagnats.client import CancelOn, Rate, RunStatus, SkipIf, StepStatus
from trio_dagnats.transport import NatsSource
from trio_dagnats.transport.port import Broker
from trio_dagnats.wire.text import compact

Act = Callable[[Run, Broker], Awaitable[None]]


async def nothing(run: Run, broker: Broker) -> None:
    """Leave a run alone."""


@dataclass
class Flow:
    """Workflows of which the last one is run, what is done from outside, and the end."""

    workflows: list[Workflow]
    output: object = None
    given: object = None
    status: RunStatus = RunStatus.COMPLETED
    act: Act = nothing
    error: str = ""
    steps: dict[str, str] = field(default_factory=dict)
    """How steps end, beside the output."""


def make_worker(nats: NatsSource) -> Worker:  # noqa: C901 - a list of handlers
    """Serve the task types of all flows."""
    worker = Worker(nats, grace=0)

    @worker.handle("echo")
    async def echo(ctx: TaskContext) -> bytes:
        return ctx.input

    @worker.handle("items")
    async def items(ctx: TaskContext) -> list[int]:
        return [1, 2, 3]

    @worker.handle("empty")
    async def empty(ctx: TaskContext) -> list[int]:
        return []

    @worker.handle_typed("double")
    async def double(ctx: TaskContext, number: int) -> int:
        return 2 * number

    @worker.handle_typed("odd")
    async def odd(ctx: TaskContext, number: int) -> int:
        if number == 2:
            raise Fatal("two is even")
        return number

    @worker.handle("flaky")
    async def flaky(ctx: TaskContext) -> int:
        if ctx.attempt == 1:
            await ctx.fail("not yet")
        return ctx.attempt

    @worker.agent_loop("agent")
    async def agent(ctx: TaskContext, state: list[int]) -> Continue[list[int]] | int:
        return Continue([*state, 1]) if len(state) < 4 else len(state)

    @worker.handle("fatal")
    async def fatal(ctx: TaskContext) -> None:
        raise Fatal("no")

    @worker.handle("forever")
    async def forever(ctx: TaskContext) -> None:
        await trio.sleep(3600)

    @worker.handle("plan")
    async def plan(ctx: TaskContext) -> object:
        more = {"id": "b", "task": "echo", "depends_on": ["a"]}
        return {"steps": [{"id": "a", "task": "items"}, more]}

    return worker


def flow_of(workflow: Workflow, output: object = None, **options: object) -> Flow:
    """Return a flow of one workflow."""
    return Flow([workflow], output, **options)  # type: ignore[arg-type]  # the fields above


def chain() -> Flow:
    workflow = Workflow("chain", timeout=600)
    doubled = workflow.map("double", over=workflow.step("items"))
    napped = workflow.sleep("nap", 1.0, after=doubled)
    workflow.step("flaky", after=napped, retry=Retry(3, delay=0.5), timeout=30)
    workflow.agent_loop("agent", after=doubled, max_iterations=9, loop_delay=0.2)
    return flow_of(workflow, {"flaky": 2, "agent": 4}, given=[])


def failing() -> Flow:
    workflow = Workflow("failing")
    workflow.step("fatal", after=workflow.step("items"))
    return flow_of(workflow, status=RunStatus.FAILED, error="no")


def timing_out() -> Flow:
    workflow = Workflow("timing-out")
    workflow.step("forever", timeout=1, retry=Retry(1, delay=0.2))
    error = "step timeout exceeded (1s)"
    return flow_of(workflow, status=RunStatus.FAILED, error=error)


def map_failing() -> Flow:
    workflow = Workflow("map-failing")
    workflow.map("odd", over=workflow.step("items"))
    return flow_of(workflow, status=RunStatus.FAILED, error="two is even")


def map_empty() -> Flow:
    workflow = Workflow("map-empty")
    workflow.step("echo", after=workflow.map("double", over=workflow.step("empty")))
    return flow_of(workflow, [])


def child_of(name: str, task: str) -> Workflow:
    workflow = Workflow(name)
    workflow.step(task)
    return workflow


def child() -> Flow:
    workflow = Workflow("child")
    sub = workflow.sub_workflow("sub", "child-items", after=workflow.step("echo"))
    workflow.map("double", over=sub)
    return Flow([child_of("child-items", "items"), workflow], [2, 4, 6], given=5)


def child_detached() -> Flow:
    workflow = Workflow("child-detached")
    workflow.step("items", after=workflow.sub_workflow("child-long", detach=True))
    return Flow([child_of("child-long", "forever"), workflow], [1, 2, 3])


def child_failing() -> Flow:
    workflow = Workflow("child-failing")
    workflow.sub_workflow("sub", "child-fatal")
    error = "child workflow failed: no"
    children = [child_of("child-fatal", "fatal"), workflow]
    return Flow(children, status=RunStatus.FAILED, error=error)


async def cancel_when_running(run: Run, broker: Broker) -> None:
    """Cancel a run once the step of its child runs."""
    while True:
        await trio.sleep(0.5)
        found = await run.snapshot()
        child_id = found.steps["sub"].child_run_id if found else ""
        child = await Run(broker, child_id).snapshot() if child_id else None
        if child and child.steps["forever"].status is StepStatus.RUNNING:
            await run.cancel()
            return


def child_cancelled() -> Flow:
    workflow = Workflow("child-cancelled")
    workflow.sub_workflow("sub", "child-slow")
    children = [child_of("child-slow", "forever"), workflow]
    return Flow(children, status=RunStatus.CANCELLED, act=cancel_when_running)


async def pay(run: Run, broker: Broker) -> None:
    """Send an event for somebody else's order, then for ours."""
    await trio.sleep(0.5)
    for order in (b"8", b"7"):
        body = b'{"order":{"id":%b}}' % order
        await broker.store("event.paid", body, deadline=trio.current_time() + 5)


def event() -> Flow:
    workflow = Workflow("event")
    workflow.wait_for_event(
        "paid", "paid", where="order.id", equals="input.order", timeout=60, after=()
    )
    return flow_of(workflow, {"order": {"id": 7}}, given={"order": 7}, act=pay)


def event_timeout() -> Flow:
    workflow = Workflow("event-timeout")
    workflow.wait_for_event("w", "never", where="id", equals="input.id", timeout=1)
    return flow_of(workflow, {"timeout": True}, given={"id": 1})


async def revoke(run: Run, broker: Broker) -> None:
    """Send an event for somebody else's order, then for ours."""
    await trio.sleep(0.5)
    for order in (b"8", b"7"):
        deadline = trio.current_time() + 5
        await broker.store("event.revoked", b'{"order":%b}' % order, deadline=deadline)


def event_cancels() -> Flow:
    revoked = CancelOn("revoked", where="order", equals="input.order")
    other = CancelOn("revoked", where="order", equals="input.nothing")
    workflow = Workflow("event-cancels", cancel_on=[other, revoked])
    workflow.step("forever")
    steps = {"forever": "cancelled"}
    return flow_of(
        workflow, given={"order": 7}, status=RunStatus.CANCELLED, act=revoke, steps=steps
    )


async def start_another(run: Run, broker: Broker) -> Run:
    """Start a second run of the workflow, once the first one waits; return it when it has ended.

    By an event, as triggers do it: a request is lost with an engine that is killed.
    """
    found = await run.snapshot()
    while found is None or found.steps["wait"].status is not StepStatus.RUNNING:
        await trio.sleep(0.1)
        found = await run.snapshot()
    other = Run(broker, run.id[::-1])
    workflow = FLOWS[found.workflow_id]().workflows[-1].build().to_wire()
    payload = {"workflow_def": workflow, "input": {"for": "Ada", "waits": False}}
    event = {"type": "workflow.started", "run_id": other.id, "payload": payload}
    begun = {**event, "timestamp": "2026-01-01T00:00:00Z"}
    deadline = trio.current_time() + 5
    await broker.store(f"history.{other.id}", compact(begun), deadline=deadline)
    await other.wait(timeout=60)
    return other


async def start_one_in_vain(run: Run, broker: Broker) -> None:
    """Start a second run, which must not begin; then let the first one go on."""
    other = await start_another(run, broker)
    assert await other.status() is RunStatus.CANCELLED
    while not (await run.status()).is_terminal:
        body = b'{"for":"Ada"}'
        await broker.store("event.skipping", body, deadline=trio.current_time() + 5)
        await trio.sleep(0.5)


async def start_one_instead(run: Run, broker: Broker) -> None:
    """Start a second run, which must complete."""
    other = await start_another(run, broker)
    assert await other.status() is RunStatus.COMPLETED


def singleton(name: str, mode: Literal["skip", "cancel"]) -> Workflow:
    workflow = Workflow(name, singleton=mode, singleton_key="for")
    workflow.step("echo")
    rule = SkipIf(step_id="echo", field="waits", op="==", value=False)
    workflow.wait_for_event(
        "wait", name, where="for", equals="input.for", timeout=3600, after="echo", skip_if=rule
    )
    return workflow


def skipping() -> Flow:
    workflow, given = singleton("skipping", "skip"), {"for": "Ada", "waits": True}
    return flow_of(workflow, {"for": "Ada"}, given=given, act=start_one_in_vain)


def superseded() -> Flow:
    workflow, given = singleton("superseded", "cancel"), {"for": "Ada", "waits": True}
    return flow_of(workflow, given=given, status=RunStatus.CANCELLED, act=start_one_instead)


def recovered() -> Flow:
    workflow = Workflow("recovered")
    workflow.step("first", "fatal", on_failure="handler")
    workflow.step("second", "fatal", on_failure="handler")
    workflow.step("then", "echo", after=["first"])
    workflow.step("good", "items")
    workflow.step("handler", "items")
    steps = {"first": "recovered", "second": "recovered", "then": "skipped"}
    output = {"then": None, "second": None, "good": [1, 2, 3]}
    return flow_of(workflow, output, steps=steps)


def saga() -> Flow:
    workflow = Workflow("saga")
    workflow.step("a", "items", compensate="undo-a")
    workflow.step("b", "items", after="a", compensate="undo-b")
    workflow.step("c", "fatal", after="b")
    workflow.step("undo-a", "echo")
    workflow.step("undo-b", "echo")
    steps = {"undo-a": "completed", "undo-b": "completed"}
    return flow_of(workflow, status=RunStatus.COMPENSATED, error="no", steps=steps)


def saga_failing() -> Flow:
    workflow = Workflow("saga-failing")
    workflow.step("a", "items", compensate="undo")
    workflow.step("b", "fatal", after="a")
    workflow.step("undo", "fatal")
    steps = {"undo": "failed", "b": "failed"}
    return flow_of(workflow, status=RunStatus.COMPENSATE_FAILED, error="no", steps=steps)


def limited() -> Flow:
    workflow = Workflow("limited", max_runs=1, max_steps=2)
    listed = workflow.step("items")
    for name in ("x", "y", "z"):
        workflow.step(name, "echo", after=listed, max_at_once=1)
    workflow.map("double", over=listed, rate=Rate(1, 0.2), max_at_once=2)
    return flow_of(workflow, {name: [1, 2, 3] for name in "xyz"} | {"double": [2, 4, 6]})


def keyed() -> Flow:
    workflow = Workflow("keyed")
    for name in ("x", "y"):
        workflow.step(name, "echo", rate=Rate(1, 0.5, key="who"))
    return flow_of(workflow, {"x": {"who": "Ada"}, "y": {"who": "Ada"}}, given={"who": "Ada"})


def planner() -> Flow:
    workflow = Workflow("planner")
    workflow.planner("plan", max_steps=5, max_depth=2, allowed_tasks=["echo", "items"])
    return flow_of(workflow, [1, 2, 3])


async def approve(run: Run, broker: Broker) -> None:
    await trio.sleep(0.5)
    await run.approve("ask", {"by": "Ada"})


async def reject(run: Run, broker: Broker) -> None:
    await trio.sleep(0.5)
    await run.reject("ask", "too dear")


def approved() -> Flow:
    workflow = Workflow("approved")
    workflow.step("echo", after=workflow.approval("ask", "approvals.x", timeout=60))
    return flow_of(workflow, {"by": "Ada"}, act=approve)


def rejected() -> Flow:
    workflow = Workflow("rejected")
    workflow.approval("ask", "approvals.x", timeout=60, description="May we?")
    return flow_of(workflow, status=RunStatus.FAILED, act=reject, error="too dear")


def approval_expired() -> Flow:
    workflow = Workflow("approval-expired")
    workflow.approval("ask", "approvals.x", timeout=1)
    return flow_of(workflow, status=RunStatus.FAILED, error="approval timed out")


def agent_and_skip() -> Flow:
    workflow = Workflow("agent-and-skip")
    first = workflow.agent("first", "echo")
    rule = SkipIf(step_id="first", field="mode", op="==", value="fast")
    workflow.sleep("nap", 3600, after=first, skip_if=rule)
    return flow_of(workflow, None, given={"mode": "fast"}, steps={"nap": "skipped"})


FLOWS = {
    make.__name__: make
    for make in (
        *(chain, failing, timing_out, map_failing, map_empty, agent_and_skip, planner),
        *(child, child_detached, child_failing, child_cancelled),
        *(
            event,
            event_timeout,
            event_cancels,
            skipping,
            superseded,
            approved,
            rejected,
            approval_expired,
        ),
        *(recovered, saga, saga_failing, limited, keyed),
    )
}


async def register(client: Client, flow: Flow) -> str:
    """Register a flow's workflows; return the name of the one to run."""
    for workflow in flow.workflows:
        await client.register(workflow)
    return flow.workflows[-1].build().name


async def play(client: Client, flow: Flow, broker: Broker) -> Run:
    """Run a flow to its end."""
    run = await client.start(await register(client, flow), flow.given)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(flow.act, run, broker)
        await run.wait(timeout=120)
    return run


async def check(run: Run, flow: Flow) -> None:
    """Fail unless a run ended as its flow says."""
    ended = await run.wait(timeout=1)
    assert ended.status is flow.status, ended
    if flow.status is RunStatus.COMPLETED:
        assert await run.output(timeout=1) == flow.output
    else:
        errors = [s.error for s in ended.steps.values() if s.status is StepStatus.FAILED]
        assert not flow.error or any(flow.error in error for error in errors), errors
    found = {step_id: ended.steps[step_id].status.value for step_id in flow.steps}
    assert found == flow.steps
