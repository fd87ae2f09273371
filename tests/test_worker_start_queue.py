"""What has begun goes before what has only arrived."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from trio_dagnats import TaskContext, Worker
from trio_dagnats.attempt.reasons import CancelReason
from trio_dagnats.testing import Harness
from trio_dagnats.transport.port import Pending, Record
from trio_dagnats.wire.events import cancelled
from trio_dagnats.wire.names import TASK_QUEUES
from trio_dagnats.worker.execution import admission
from trio_dagnats.worker.execution.admission import PER_TURN, StartQueue


@dataclass(eq=False)
class One:
    """Something that begins."""

    number: int
    pending: Pending | None = None
    lease_until: float = 1.0


@dataclass
class Gate:
    """A start queue, and the numbers of what has begun."""

    start_queue: StartQueue[One]
    begun: list[int]

    def enter(self, count: int, first: int = 0) -> list[One]:
        """Let as many come at once."""
        ones = [One(first + number) for number in range(count)]
        for one in ones:
            self.start_queue.enter(one)
        return ones


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    begun: list[int] = []

    def begin(one: One) -> None:
        assert one.pending is None
        begun.append(one.number)

    found = StartQueue(begin)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        await trio.testing.wait_all_tasks_blocked()
        yield Gate(found, begun)
        nursery.cancel_scope.cancel()


async def test_a_few_begin_at_once(gate: Gate) -> None:
    for turn in range(3):
        gate.enter(PER_TURN, turn * PER_TURN)
        assert gate.begun == list(range((turn + 1) * PER_TURN))
        await trio.testing.wait_all_tasks_blocked()


async def test_of_many_only_some_begin_in_a_turn(gate: Gate) -> None:
    count = 10 * PER_TURN
    looks: list[int] = []

    gate.enter(count)
    while len(gate.begun) < count:
        looks.append(len(gate.begun))
        await trio.lowlevel.checkpoint()

    assert looks[0] == PER_TURN
    assert all(begun % PER_TURN == 0 for begun in looks)
    assert 9 <= len(looks) <= 10  # trio shuffles whose step is first in a turn
    assert gate.begun == list(range(count))


async def test_who_comes_later_begins_later(gate: Gate) -> None:
    gate.enter(PER_TURN + 2)
    await trio.lowlevel.checkpoint()
    gate.enter(PER_TURN, PER_TURN + 2)
    await trio.testing.wait_all_tasks_blocked()

    assert gate.begun == list(range(2 * PER_TURN + 2))


async def test_who_leaves_the_line_does_not_begin(gate: Gate) -> None:
    ones = gate.enter(PER_TURN + 3)
    place = ones[PER_TURN + 1].pending
    assert place is not None

    place.abandon()
    await trio.testing.wait_all_tasks_blocked()

    assert gate.begun == [*range(PER_TURN + 1), PER_TURN + 2]


@pytest.mark.parametrize("ends_all", [1, PER_TURN, PER_TURN + 1, 2 * PER_TURN])
async def test_what_is_ended_in_line_is_handed_back(
    autojump_clock: MockClock, harness: Harness, ends_all: int
) -> None:
    """Whichever handler it is that ends all others: they come again, and none is lost."""
    count = 4 * PER_TURN
    worker = Worker(harness.broker, concurrency=count)
    deliveries: list[int] = []
    outputs: list[object] = []

    @worker.handle("t")
    async def note(ctx: TaskContext) -> int:
        deliveries.append(ctx.deliveries)
        own = ctx._attempt
        if len(deliveries) == ends_all:
            for other in list(own.in_flight.live):
                if other is not own:
                    other.cancel(CancelReason.DRAIN)
        return 1

    async def run_one() -> None:
        outputs.append((await harness.run("t")).output)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(run_one)
        while len(await stored_tasks(harness)) < count:
            await trio.lowlevel.checkpoint()
        async with worker:
            while len(outputs) < count:
                await trio.sleep(1)

    assert outputs == [1] * count
    assert set(deliveries) == {1, 2}


async def test_what_stands_in_line_for_long_keeps_its_lease_and_hears_of_its_run(
    autojump_clock: MockClock, harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "PER_TURN", 0)  # nobody begins
    worker = Worker(harness.broker, grace=0)
    worker.handle("t", nothing, ack_wait=30)

    async def in_flight() -> int:
        """Return how many tasks are held by somebody; all are."""
        soon = trio.current_time() + 1
        (found,) = await harness.broker.consumers(TASK_QUEUES, deadline=soon)
        assert found.pending == 0
        return found.ack_pending

    async with worker, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(run_in_vain, harness)
        await trio.sleep(1000)
        assert await in_flight() == 3
        assert worker._service is not None
        assert all(one.lease_until > trio.current_time() for one in worker._service.live)

        ended = cancelled("run-2", harness.broker.time_ns())
        soon = trio.current_time() + 1
        await harness.broker.store(ended.subject, ended.body, msg_id=ended.msg_id, deadline=soon)
        await trio.sleep(1)
        assert await in_flight() == 2
        nursery.cancel_scope.cancel()


async def nothing(ctx: TaskContext) -> None:
    """Do nothing."""


async def run_in_vain(harness: Harness) -> None:
    """Run a step of which nobody hears."""
    await harness.run("t", timeout=10_000)


async def stored_tasks(harness: Harness) -> Sequence[Record]:
    """Return what waits for a worker."""
    soon = trio.current_time() + 1
    return await harness.broker.records(TASK_QUEUES, "task.t.>", deadline=soon)
