"""Why a handler was cancelled, as it reads it, and what becomes of its message, in virtual time."""

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from trio_dagnats import CancelReason, TaskContext, Worker
from trio_dagnats.testing import Harness
from trio_dagnats.wire import events
from trio_dagnats.wire.events import EventType, parse_event
from trio_dagnats.wire.text import compact, rfc3339

NAK, ACK, NOTHING = ["-NAK"], ["+ACK"], list[str]()
End = Callable[[Harness, Worker], Awaitable[None]]


def soon() -> float:
    return trio.current_time() + 10


async def drain(_harness: Harness, worker: Worker) -> None:
    worker.stop()


async def cancel_the_run(harness: Harness, _worker: Worker) -> None:
    event = events.cancelled("r", harness.broker.time_ns())
    await harness.broker.store(event.subject, event.body, deadline=soon())


async def tell(harness: Harness, kind: EventType, **more: object) -> None:
    body = {"type": kind.value, "run_id": "r", **more}
    await harness.broker.store("history.r", compact(body), deadline=soon())


async def fail_the_run(harness: Harness, _worker: Worker) -> None:
    await tell(harness, EventType.WORKFLOW_FAILED)


async def complete_the_run(harness: Harness, _worker: Worker) -> None:
    await tell(harness, EventType.WORKFLOW_COMPLETED)


async def time_the_step_out(harness: Harness, _worker: Worker) -> None:
    await tell(harness, EventType.STEP_FAILED, step_id="s", attempt_number=1)


async def pass_the_deadline(_harness: Harness, _worker: Worker) -> None:
    await trio.sleep(120)


async def lose_the_connection(harness: Harness, _worker: Worker) -> None:
    harness.broker.disconnect()
    await trio.sleep(60)
    harness.broker.reconnect()


async def nothing(_harness: Harness, _worker: Worker) -> None:
    pass


CASES: list[tuple[End, CancelReason, list[str]]] = [
    (drain, CancelReason.DRAIN, NAK),
    (cancel_the_run, CancelReason.RUN_CANCELLED, ACK),
    (fail_the_run, CancelReason.RUN_ENDED, ACK),
    (complete_the_run, CancelReason.RUN_ENDED, ACK),
    (time_the_step_out, CancelReason.STEP_TIMEOUT, ACK),
    (pass_the_deadline, CancelReason.RUN_DEADLINE, ACK),
    (lose_the_connection, CancelReason.LEASE_LOST, NOTHING),
]


async def read_reason(
    harness: Harness, end: End, body: Callable[[TaskContext], Awaitable[None]]
) -> list[CancelReason | None]:
    """Run one handler, end it, and return the reasons that it read."""
    reasons: list[CancelReason | None] = []
    started = trio.Event()
    worker = Worker(harness.broker, grace=0)

    @worker.handle("t", ack_wait=30)
    async def handler(ctx: TaskContext) -> None:
        started.set()
        try:
            await body(ctx)
        finally:
            reasons.append(ctx.cancel_reason)

    async with worker:
        task = compact({"run_id": "r", "step_id": "s"})
        await harness.broker.store("task.t.r", task, deadline=soon())
        await started.wait()
        await trio.sleep(2)
        await end(harness, worker)
        while not reasons:
            await trio.sleep(1)
        await trio.sleep(1)
    return reasons


async def for_ever(_ctx: TaskContext) -> None:
    await trio.sleep_forever()


async def set_deadline(harness: Harness) -> None:
    deadline = rfc3339(harness.broker.time_ns() + 60 * 10**9)
    run = compact({"run_id": "r", "status": "running", "deadline": deadline})
    await harness.broker.kv_put("workflow_runs", "run.r", run, deadline=soon())


def first_answers(harness: Harness) -> list[str]:
    """Return what was said about the first delivery."""
    return [answer.body for answer in harness.server.answers if answer.deliveries == 1]


def outcomes(harness: Harness) -> list[str]:
    """Return what the worker has published beside the start."""
    records = harness.server.stream("WORKFLOW_HISTORY").read("history.r", harness.broker.time_ns())
    found = [parse_event(record.body) for record in records]
    return [event.type for event in found if event.worker_id and "started" not in event.type]


@pytest.mark.parametrize(
    ("end", "reason", "answers"), CASES, ids=[end.__name__ for end, _, _ in CASES]
)
async def test_a_handler_reads_why_it_was_cancelled_and_nothing_more_is_said(
    autojump_clock: MockClock,
    harness: Harness,
    end: End,
    reason: CancelReason,
    answers: list[str],
) -> None:
    if reason is CancelReason.RUN_DEADLINE:
        await set_deadline(harness)

    reasons = await read_reason(harness, end, for_ever)

    assert reasons[0] is reason
    assert first_answers(harness) == answers
    # An event tells the engine that the deadline has passed; it does not look by itself.
    assert outcomes(harness) == ["step.failed"] * (reason is CancelReason.RUN_DEADLINE)


async def test_a_handler_that_hands_itself_back_reads_that(
    autojump_clock: MockClock, harness: Harness
) -> None:
    async def pauses(ctx: TaskContext) -> None:
        await ctx.pause(3600, hand_back=True)

    reasons = await read_reason(harness, nothing, pauses)

    assert reasons == [CancelReason.HANDED_BACK]
    assert [answer.startswith('-NAK {"delay"') for answer in first_answers(harness)] == [True]


async def test_a_cancellation_from_outside_reads_as_a_drain(
    autojump_clock: MockClock, harness: Harness
) -> None:
    with trio.CancelScope() as scope:

        async def cancel(_harness: Harness, _worker: Worker) -> None:
            scope.cancel()

        async def reads(ctx: TaskContext) -> None:
            try:
                await trio.sleep_forever()
            finally:
                reasons.append(ctx.cancel_reason)

        reasons: list[CancelReason | None] = []
        await read_reason(harness, cancel, reads)

    assert reasons == [CancelReason.DRAIN]
    assert first_answers(harness) == NAK


async def returns(_ctx: TaskContext) -> None:
    await trio.sleep(5)


async def raises(_ctx: TaskContext) -> None:
    raise ValueError("no")


async def gives_up_by_itself(_ctx: TaskContext) -> None:
    with trio.fail_after(3):
        await trio.sleep_forever()


async def cancels_itself(_ctx: TaskContext) -> None:
    with trio.CancelScope() as scope:
        scope.cancel()
        await trio.sleep_forever()


@pytest.mark.parametrize("body", [returns, raises, gives_up_by_itself, cancels_itself])
async def test_a_handler_that_ends_by_itself_reads_no_reason(
    autojump_clock: MockClock, harness: Harness, body: Callable[[TaskContext], Awaitable[None]]
) -> None:
    reasons = await read_reason(harness, nothing, body)

    assert reasons == [None]
    assert first_answers(harness) == ACK
    assert len(outcomes(harness)) == 1


def test_every_reason_is_tried() -> None:
    tried = {reason for _, reason, _ in CASES} | {CancelReason.HANDED_BACK}

    elsewhere = {CancelReason.NOT_STARTED, CancelReason.BROKEN_OFF}  # pipelined, fleet
    assert tried == set(CancelReason) - elsewhere
