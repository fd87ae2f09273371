"""The local engine, killed after each message that it sends, and started again."""

import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from engine_flows import FLOWS, check, make_worker
from golden_files import Scenario, load
from golden_replay import Handlers
from test_golden_engine import DONE

from trio_dagnats import Client, Run, Worker, Workflow
from trio_dagnats.client import RunStatus
from trio_dagnats.local import LocalEngine
from trio_dagnats.transport.memory import MemoryBroker, MemoryServer
from trio_dagnats.transport.port import Message
from trio_dagnats.wire.run import WorkflowRun

SERVED = {
    "group": ("nobody", None),
    "cancel_queued": ("echo", None),
    "group_retry": ("flakyg", "gpu"),
}
"""Task types and groups that are served in some scenarios; in the others all, without groups."""
RACES = {
    "timeout_retry": "an attempt that has timed out completes the step if its worker is not told "
    "in time, as recorded; the flow timing_out has one that never completes"
}
"""Scenarios that may end otherwise when the engine is away for a while, and why."""
RUN_ID = re.compile("[0-9a-f]{32}")
WATCHED = ("task.", "sleep.", "dead.", "$KV.workflow_runs.", "history.")


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


@asynccontextmanager
async def doomed_engine(
    killer: Killer, workflows: Sequence[Workflow | Mapping[str, object]]
) -> AsyncIterator[tuple[MemoryServer, Client]]:
    """Serve with an engine that is killed; the workflows are registered."""
    async with MemoryServer() as server, trio.open_nursery() as nursery:
        ear = MemoryBroker(server)
        async with ear.listen(">", killer.hear), Client(ear) as client:
            async with LocalEngine(MemoryBroker(server)):
                for workflow in workflows:
                    await client.register(workflow)
            nursery.start_soon(run_engine, server, killer)
            await trio.sleep(2)
            yield server, client
        nursery.cancel_scope.cancel()


async def play_flow(name: str, after: int) -> tuple[Killer, list[tuple[str, str]]]:
    """Run a flow on an engine that is killed after so many messages; 0 for never."""
    killer, flow = Killer(after), FLOWS[name]()
    async with doomed_engine(killer, flow.workflows) as (server, client):
        async with make_worker(MemoryBroker(server)), trio.open_nursery() as nursery:
            run = await client.start(flow.workflows[-1].build().name, flow.given)
            nursery.start_soon(flow.act, run, MemoryBroker(server))
            await run.wait(timeout=300)
            await trio.sleep(20)
            await check(run, flow)
        runs = await client.runs()
    return killer, sorted((r.workflow_id, outline(r)) for r in runs)


async def play_scenario(name: str, after: int) -> tuple[Killer, list[tuple[str, str]]]:
    """Do the same with a recorded scenario, whether its run ends or not."""
    killer, scenario = Killer(after), load(name)
    workflows = [load(other).workflow for other in {name, "hello"}]
    async with doomed_engine(killer, workflows) as (server, client):
        worker = Worker(MemoryBroker(server))
        only, group = SERVED.get(name, ("", None))
        Handlers().register(worker, only, group)
        async with worker, trio.open_nursery() as nursery:
            run = await client.start(scenario.workflow["name"], scenario.given)
            nursery.start_soon(act, scenario, run, MemoryBroker(server))
            await trio.sleep(60)
        runs = await client.runs()
    return killer, sorted((r.workflow_id, outline(r)) for r in runs)


async def act(scenario: Scenario, run: Run, broker: MemoryBroker) -> None:
    """Do from outside what was done when the scenario was recorded."""
    for at, kind, *more in scenario.acts:
        await trio.sleep(at)
        if kind == "cancel":
            await cancel(run)
        elif kind == "signal":
            await run.signal(str(more[0]), str(more[1]).encode())
        elif kind == "event":
            body = json.dumps(more[1]).encode()
            await broker.store(f"event.{more[0]}", body, deadline=trio.current_time() + 5)


async def cancel(run: Run) -> None:
    """Cancel a run as soon as it runs."""
    while await run.status() is RunStatus.PENDING:
        await trio.sleep(0.5)
    await run.cancel()


def outline(run: WorkflowRun) -> str:
    """Write how a run stands: its status, and each step's with its output."""
    steps = {
        step_id: (s.status, RUN_ID.sub("a run", s.error), s.output)
        for step_id, s in run.steps.items()
    }
    for step_id, state in run.steps.items():
        if state.child_run_id and b"child_run_id" in state.raw_output():
            steps[step_id] = (state.status, "", "of a detached child")
    return f"{run.status} {steps}"


def tails(killer: Killer) -> set[str]:
    """Return the ids of the tasks without the run's, which differs."""
    return {msg_id.split(".", 1)[1] for msg_id in killer.sent}


@pytest.mark.parametrize("name", FLOWS)
async def test_a_flow_ends_the_same_wherever_the_engine_is_killed(
    name: str, autojump_clock: trio.testing.MockClock
) -> None:
    undisturbed, ended = await play_flow(name, 0)
    for after in range(1, undisturbed.count + 1):
        killer, again = await play_flow(name, after)

        assert again == ended, after
        assert tails(killer) == tails(undisturbed), after


@pytest.mark.parametrize("name", [name for name in DONE if name not in RACES])
async def test_a_recorded_run_ends_the_same_wherever_the_engine_is_killed(
    name: str, autojump_clock: trio.testing.MockClock
) -> None:
    undisturbed, ended = await play_scenario(name, 0)
    for after in range(1, undisturbed.count + 1):
        killer, again = await play_scenario(name, after)

        assert again == ended, after
        assert tails(killer) == tails(undisturbed), after
