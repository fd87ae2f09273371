"""How a worker says that it is, to those who ask."""

import trio
from trio.testing import MockClock

from trio_dagnats import TaskContext, Worker
from trio_dagnats.testing import Harness
from trio_dagnats.worker.observe.health import Health


def health(worker: Worker) -> Health:
    assert worker._service is not None
    return worker._service.health()


async def test_a_worker_says_how_it_is(autojump_clock: MockClock, harness: Harness) -> None:
    worker, started = Worker(harness.broker, grace=60), trio.Event()
    found: list[Health] = []

    @worker.handle("t")
    async def handler(ctx: TaskContext) -> None:
        found.append(health(worker))
        started.set()
        await ctx.draining.wait()
        found.append(health(worker))

    async with trio.open_nursery() as nursery, worker:
        idle = health(worker)
        nursery.start_soon(harness.run, "t")
        await started.wait()

    assert (idle.ready, idle.draining, idle.attempts) == (True, False, 0)
    assert [(one.ready, one.draining, one.attempts) for one in found] == [
        (True, False, 1),
        (True, True, 1),
    ]


async def test_a_worker_knows_that_its_server_is_away(
    autojump_clock: MockClock, harness: Harness
) -> None:
    worker = Worker(harness.broker)
    worker.handle("t", noop)

    async with worker:
        assert health(worker).connected
        harness.broker.disconnect()
        away = health(worker).connected
        harness.broker.reconnect()
        assert health(worker).connected

    assert not away


async def noop(ctx: TaskContext) -> None: ...
