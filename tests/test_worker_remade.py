"""Streams and durables that somebody deletes, purges or makes again while handlers run."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import trio
from contract_bench import Sink
from fleet_bench import Fleet, fleet_on
from trio.testing import MockClock

from trio_dagnats import TaskContext, Worker
from trio_dagnats.local import Server
from trio_dagnats.testing import Harness
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import ConsumerSpec, Message, Stored
from trio_dagnats.wire.events import EventType, parse_event
from trio_dagnats.wire.names import (
    DEAD_LETTERS,
    TASK_QUEUES,
    WORKFLOW_HISTORY,
    history_subject,
    task_subject,
)
from trio_dagnats.worker.intake.lookout import EVERY

RUNS = [f"r{number}" for number in range(20)]
Act = Callable[[Fleet], Awaitable[object]]


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """A server of the test's own, which it changes."""
    async with Server() as server, fleet_on(server) as found:
        yield found


async def history_is_made_again(fleet: Fleet) -> None:
    await fleet.make_again(WORKFLOW_HISTORY)


async def history_is_made_again_and_has_older_events(fleet: Fleet) -> None:
    await fleet.make_again(WORKFLOW_HISTORY)
    for run in RUNS:
        body = b'{"type":"workflow.started","run_id":"%b"}' % run.encode()
        await fleet.admin.store(f"history.{run}", body, deadline=trio.current_time() + 10)


async def history_is_purged(fleet: Fleet) -> None:
    await fleet.api(f"STREAM.PURGE.{WORKFLOW_HISTORY}")


async def one_run_is_purged(fleet: Fleet) -> None:
    await fleet.api(f"STREAM.PURGE.{WORKFLOW_HISTORY}", filter="history.r0")


@pytest.mark.parametrize("ack_wait", [20.0, 300.0], ids=["conditional", "plain"])
@pytest.mark.parametrize(
    "act",
    [
        history_is_made_again,
        history_is_made_again_and_has_older_events,
        history_is_purged,
        one_run_is_purged,
    ],
)
async def test_what_was_known_of_a_history_that_is_gone_holds_no_outcome_up(
    fleet: Fleet, act: Act, ack_wait: float
) -> None:
    """The lease would end, with the slot held until then, and all would run again."""
    async with fleet.worker(ack_wait=ack_wait):
        await fleet.put(*RUNS)
        await fleet.until_begun(len(RUNS))
        await act(fleet)

        fleet.may_end.set()
        await fleet.queued(0)
    assert fleet.begun == await fleet.outcomes() == dict.fromkeys(RUNS, 1)


async def test_a_task_that_has_the_sequence_of_one_in_a_deleted_stream_is_another_one(
    fleet: Fleet,
) -> None:
    """Nor does the answer to the old one, which still runs, take the new one from the queue."""
    async with fleet.worker():
        await fleet.put("old")
        await fleet.until_begun(1)
        await fleet.make_again(TASK_QUEUES)

        await fleet.put("new")

        await fleet.until_begun(2)
        fleet.may_end.set()
        await fleet.queued(0)
        assert fleet.begun == await fleet.outcomes() == {"old": 1, "new": 1}


async def test_the_answer_to_a_task_of_a_deleted_stream_takes_no_other_ones_message(
    fleet: Fleet,
) -> None:
    """Another worker has the new task, and is killed: it must come again."""
    async with fleet.worker(concurrency=1):
        await fleet.put("old")
        await fleet.until_begun(1)
        await fleet.make_again(TASK_QUEUES)
        async with open_broker(fleet.url) as broker, trio.open_nursery() as nursery:
            sink = Sink()
            await fleet.until_made()
            async with broker.intake(TASK_QUEUES, "workers-t", sink) as intake:
                await fleet.put("new")
                intake.pull(1, 30.0)
                await sink.wait(1)
                fleet.may_end.set()
                await fleet.until_stored("old")
                await fleet.admin.request("$JS.API.INFO", b"", timeout=10.0)  # all has arrived

                state = (await fleet.api("STREAM.INFO.TASK_QUEUES"))["state"]
                assert state["messages"] == 1
            nursery.cancel_scope.cancel()


async def test_what_is_no_task_is_kept_though_its_sequence_was_anothers(fleet: Fleet) -> None:
    """An id of the sequence alone would be a duplicate's."""
    async with fleet.worker():
        for body in (b"old", b"new"):
            await fleet.make_again(TASK_QUEUES)
            await fleet.admin.store("task.t.r", body, deadline=trio.current_time() + 10)
            await fleet.queued(0)
    kept = await fleet.admin.records(DEAD_LETTERS, "dead.>", deadline=trio.current_time() + 10)

    assert [record.body for record in kept] == [b"old", b"new"]


async def the_first_executions_end_first(fleet: Fleet) -> None:
    fleet.may_end.set()
    await fleet.until_stored(*RUNS)
    await fleet.until_ids_are_forgotten()
    fleet.may_end_again.set()


async def the_second_executions_end_first(fleet: Fleet) -> None:
    fleet.may_end_again.set()
    await fleet.until_stored(*(run for run in RUNS if fleet.begun[run] > 1))
    await fleet.until_ids_are_forgotten()
    fleet.may_end.set()


@pytest.mark.parametrize(
    "slots", [len(RUNS) * 4 // 5, len(RUNS) // 2], ids=["with a pull", "with all slots full"]
)
@pytest.mark.parametrize("end", [the_first_executions_end_first, the_second_executions_end_first])
async def test_a_durable_that_is_deleted_under_two_workers_makes_no_second_outcomes(
    fleet: Fleet, end: Act, slots: int
) -> None:
    """What is delivered again is executed again; that cannot be helped.

    Neither worker can have all of the tasks: what is delivered again to the one that runs it
    already is no second execution.
    """
    await fleet.forget_ids_soon()
    async with fleet.worker(concurrency=slots), fleet.worker(concurrency=slots):
        await fleet.put(*RUNS)
        await fleet.until_begun(len(RUNS))
        await fleet.api("CONSUMER.DELETE.TASK_QUEUES.workers-t")
        if 2 * slots > len(RUNS):
            await fleet.until_begun(len(RUNS) + 1)

        await end(fleet)

        await fleet.queued(0)
    assert await fleet.outcomes() == dict.fromkeys(RUNS, 1)


async def test_a_lease_that_somebody_shortens_is_restored_upon_the_first_redelivery(
    fleet: Fleet,
) -> None:
    async with fleet.worker():
        await fleet.put("r")
        await fleet.until_begun(1)
        shorter = ConsumerSpec(
            stream=TASK_QUEUES,
            durable="workers-t",
            filter_subject="task.t.>",
            ack_wait_ns=10**9,
            max_ack_pending=100_000,
        )
        await fleet.admin.ensure_consumer(shorter, deadline=trio.current_time() + 10)
        begun = trio.current_time()

        await fleet.until_lease(300)

        assert trio.current_time() - begun < EVERY / 2
    assert fleet.begun == {"r": 1}


async def test_a_task_that_cannot_be_read_fails_its_step_with_few_sends(
    autojump_clock: MockClock, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of its own is in the history, and all that is there is older than the task."""
    conditions: list[object] = []
    store, failed = harness.broker.store, trio.Event()

    def counted(*args: Any, **options: Any) -> Awaitable[Stored]:  # noqa: ANN401 - passed on
        if options.get("expect_last") is not None:
            conditions.append(options["expect_last"])
        return store(*args, **options)

    def hear(message: Message | None) -> None:
        if message is not None and parse_event(message.body).type == EventType.STEP_FAILED:
            failed.set()

    monkeypatch.setattr(harness.broker, "store", counted)
    worker = Worker(harness.broker)

    @worker.handle("t", ack_wait=6)
    async def handler(ctx: TaskContext) -> None:
        raise AssertionError("it cannot be read")

    deadline = trio.current_time() + 100
    older = b'{"type":"workflow.started","run_id":"r"}'
    await harness.broker.store(history_subject("r"), older, deadline=deadline)
    await trio.sleep(1)
    body = b'{"run_id":"r","step_id":"s","attempt":"x"}'
    async with worker, harness.broker.listen(history_subject("r"), hear):
        await harness.broker.store(task_subject("t", "r"), body, deadline=deadline)
        with trio.fail_after(6):
            await failed.wait()

    assert 1 <= len(conditions) <= 3
