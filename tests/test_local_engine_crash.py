"""The local engine, killed after each message that it sends, and started again."""

from collections import Counter

import pytest
import trio
import trio.testing

from trio_dagnats import Client, Continue, Fatal, Retry, TaskContext, Worker, Workflow
from trio_dagnats.local import LocalEngine
from trio_dagnats.transport.memory import MemoryBroker, MemoryServer
from trio_dagnats.transport.port import Message
from trio_dagnats.wire.run import WorkflowRun

WATCHED = ("task.", "sleep.", "dead.", "$KV.workflow_runs.", "history.")


def make_worker(server: MemoryServer) -> Worker:
    worker = Worker(MemoryBroker(server))

    @worker.handle("items")
    async def items(ctx: TaskContext) -> list[int]:
        return [1, 2]

    @worker.handle_typed("double")
    async def double(ctx: TaskContext, number: int) -> int:
        return 2 * number

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

    return worker


def good() -> Workflow:
    workflow = Workflow("good", timeout=600)
    items = workflow.step("items")
    doubled = workflow.map("double", over=items)
    napped = workflow.sleep("nap", 1.0, after=doubled)
    workflow.step("flaky", after=napped, retry=Retry(3, delay=0.5), timeout=30)
    workflow.agent_loop("agent", after=doubled, max_iterations=9)
    return workflow


def bad() -> Workflow:
    workflow = Workflow("bad")
    workflow.step("fatal", after=workflow.step("items"))
    return workflow


class Killer:
    """Counts what the engine sends, and kills it after a given message."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.sent: Counter[str] = Counter()
        self.count = 0
        self._broker: MemoryBroker | None = None
        self._scope: trio.CancelScope | None = None

    def aim(self, broker: MemoryBroker, scope: trio.CancelScope) -> None:
        self._broker, self._scope = broker, scope

    def hear(self, message: Message | None) -> None:
        assert message is not None
        by_worker = b'"worker_id"' in message.body or b'"step.continue"' in message.body
        started = b'"workflow.started"' in message.body  # its client waits for the answer
        if not message.subject.startswith(WATCHED) or by_worker or started:
            return
        if message.subject.startswith("task."):
            self.sent[message.headers["Nats-Msg-Id"]] += 1
        self.count += 1
        if self.count == self.after and self._broker and self._scope:
            self._broker.crash()
            self._scope.cancel()


async def run_engine(server: MemoryServer, killer: Killer) -> None:
    """Run an engine; when it is killed, run another one."""
    while True:
        broker = MemoryBroker(server)
        with trio.CancelScope() as scope:
            killer.aim(broker, scope)
            async with LocalEngine(broker):
                await trio.sleep_forever()
        if not scope.cancelled_caught:
            return


async def play(workflow: Workflow, after: int) -> tuple[Killer, WorkflowRun]:
    """Run a workflow on an engine that is killed after so many messages; 0 for never."""
    killer = Killer(after)
    async with MemoryServer() as server, trio.open_nursery() as nursery:
        ear = MemoryBroker(server)
        async with ear.listen(">", killer.hear), Client(MemoryBroker(server)) as client:
            async with LocalEngine(MemoryBroker(server)):
                await client.register(workflow)
            nursery.start_soon(run_engine, server, killer)
            await trio.sleep(2)
            async with make_worker(server):
                run = await client.start(workflow.build().name, [])
                ended = await run.wait(timeout=300)
                await trio.sleep(10)
        nursery.cancel_scope.cancel()
    return killer, ended


@pytest.mark.parametrize("workflow", [good(), bad()], ids=["good", "bad"])
async def test_a_run_ends_the_same_wherever_the_engine_is_killed(
    workflow: Workflow, autojump_clock: trio.testing.MockClock
) -> None:
    undisturbed, ended = await play(workflow, 0)
    for after in range(1, undisturbed.count + 1):
        killer, again = await play(workflow, after)

        assert again.status == ended.status, after
        assert again.steps.keys() == ended.steps.keys()
        for step_id, state in ended.steps.items():
            found = again.steps[step_id]
            assert (found.status, found.output) == (state.status, state.output), (after, step_id)
        ids = {msg_id.split(".", 1)[1] for msg_id in killer.sent}
        assert ids == {msg_id.split(".", 1)[1] for msg_id in undisturbed.sent}, after
