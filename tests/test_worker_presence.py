"""What a worker does now and then while it serves: its durables stay as it made them."""

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import TaskContext, Worker
from trio_dagnats.testing import Harness
from trio_dagnats.transport.port import ConsumerSpec
from trio_dagnats.wire.names import TASK_QUEUES, durable_name, filter_subject
from trio_dagnats.worker.durables import MAX_ACK_PENDING, NS
from trio_dagnats.worker.presence import EVERY

SERVED = ("a", "b", "c")


async def bounds(harness: Harness) -> set[int]:
    found = await harness.broker.consumers(TASK_QUEUES, deadline=trio.current_time() + 10)
    return {state.max_ack_pending for state in found}


async def test_what_a_go_worker_resets_is_restored(
    autojump_clock: MockClock, harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker(harness.broker)

    async def handler(ctx: TaskContext) -> None:
        pass

    for name in SERVED:
        worker.handle(name, handler)
    async with worker:
        assert await bounds(harness) == {MAX_ACK_PENDING}
        for name in SERVED:
            made = ConsumerSpec(
                stream=TASK_QUEUES,
                durable=durable_name(name),
                filter_subject=filter_subject(name),
                ack_wait_ns=300 * NS,
            )
            reset = replace(made, max_ack_pending=1000)
            await harness.broker.ensure_consumer(reset, deadline=trio.current_time() + 10)
        assert await bounds(harness) == {1000}

        await trio.sleep(EVERY + 1)

        assert await bounds(harness) == {MAX_ACK_PENDING}
    assert caplog.text.count("was reset") == 1
