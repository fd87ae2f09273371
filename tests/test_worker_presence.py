"""What a worker does now and then while it serves: its durables stay as it made them."""

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import TaskContext, Worker
from trio_dagnats.testing import Harness
from trio_dagnats.transport.port import ConsumerSpec, ConsumerState
from trio_dagnats.wire.names import TASK_QUEUES, durable_name, filter_subject
from trio_dagnats.wire.text import NS
from trio_dagnats.worker.intake.durables import MAX_ACK_PENDING
from trio_dagnats.worker.intake.lookout import EVERY

SERVED = ("a", "b", "c")


MADE = (MAX_ACK_PENDING, 300 * NS)


async def bounds(harness: Harness) -> set[tuple[int, int]]:
    found = await harness.broker.consumers(TASK_QUEUES, deadline=trio.current_time() + 10)
    return {(state.max_ack_pending, state.ack_wait_ns) for state in found}


@pytest.mark.parametrize(("bound", "ack_wait"), [(1000, 300), (MAX_ACK_PENDING, 30), (1000, 30)])
async def test_what_another_worker_resets_is_restored(
    bound: int,
    ack_wait: int,
    autojump_clock: MockClock,
    harness: Harness,
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = Worker(harness.broker)

    async def handler(ctx: TaskContext) -> None:
        pass

    for name in SERVED:
        worker.handle(name, handler)
    async with worker:
        assert await bounds(harness) == {MADE}
        for name in SERVED:
            reset = ConsumerSpec(
                stream=TASK_QUEUES,
                durable=durable_name(name),
                filter_subject=filter_subject(name),
                ack_wait_ns=ack_wait * NS,
                max_ack_pending=bound,
            )
            await harness.broker.ensure_consumer(reset, deadline=trio.current_time() + 10)
        assert await bounds(harness) == {(bound, ack_wait * NS)}

        await trio.sleep(EVERY + 1)

        assert await bounds(harness) == {MADE}
    assert caplog.text.count("was reset") == 1


async def test_a_start_asks_once_what_there_is(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of a hundred consumers for each of a hundred task types took most of the start."""
    asked = []
    consumers = harness.broker.consumers

    async def count(stream: str, *, deadline: float) -> Sequence[ConsumerState]:
        asked.append(stream)
        return await consumers(stream, deadline=deadline)

    monkeypatch.setattr(harness.broker, "consumers", count)
    worker = Worker(harness.broker)
    for number in range(100):
        worker.handle(f"t{number}", lambda _: None)
    async with worker:
        assert asked == [TASK_QUEUES]
    assert len(await bounds(harness)) == 1
