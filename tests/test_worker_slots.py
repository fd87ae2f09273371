import pytest
import trio
import trio.testing

from trio_dagnats.worker.slots import Share, Slots


async def promised(slots: Slots, share: Share) -> int:
    """Pull for whatever is free now."""
    with trio.fail_after(1):
        return await slots.promise(share)


async def test_a_pull_is_promised_all_free_slots() -> None:
    slots = Slots(5)

    assert await promised(slots, slots.share(None)) == 5
    assert (slots.free, slots.promised) == (0, 5)


async def test_a_consumer_pulls_no_more_than_its_own_limit() -> None:
    slots = Slots(5)

    assert await promised(slots, slots.share(2)) == 2


async def test_an_arrival_turns_a_promise_into_a_running_attempt() -> None:
    slots = Slots(2)
    share = slots.share(None)
    await promised(slots, share)

    assert slots.arrived(share)
    assert (slots.free, slots.promised, slots.running) == (0, 1, 1)


async def test_an_arrival_without_promise_takes_a_free_slot_or_none() -> None:
    slots = Slots(1)
    share = slots.share(None)

    assert slots.arrived(share)
    assert not slots.arrived(share)


async def test_promises_that_return_are_free_again() -> None:
    slots = Slots(3)
    share = slots.share(None)
    await promised(slots, share)

    slots.returned(share, 3)

    assert (slots.free, slots.promised) == (3, 0)


async def test_a_pull_waits_until_a_slot_is_free(autojump_clock: trio.testing.MockClock) -> None:
    slots = Slots(1)
    share = slots.share(None)
    await promised(slots, share)
    slots.arrived(share)
    with trio.move_on_after(10) as scope:
        await slots.promise(share)
    assert scope.cancelled_caught

    slots.ended(share)

    assert await promised(slots, share) == 1


async def test_an_attempt_that_waits_frees_its_slot() -> None:
    slots = Slots(1)
    share = slots.share(None)
    await promised(slots, share)
    slots.arrived(share)

    slots.suspend(share)

    assert (slots.free, slots.running, slots.waiting) == (1, 0, 1)


async def test_an_attempt_resumes_at_once_on_a_slot_that_is_only_promised() -> None:
    """An open pull lasts up to 30 s; a signal must not wait for its end."""
    slots = Slots(1)
    share = slots.share(None)
    await promised(slots, share)
    slots.arrived(share)
    slots.suspend(share)
    await promised(slots, share)

    with trio.fail_after(1):
        await slots.resume(share)

    assert (slots.free, slots.promised, slots.running) == (-1, 1, 1)


async def test_an_overdrawn_promise_is_handed_back_once() -> None:
    slots = Slots(2)
    share = slots.share(None)
    await promised(slots, share)
    slots.arrived(share)
    slots.suspend(share)
    await promised(slots, share)
    await slots.resume(share)
    assert slots.free == -1

    assert slots.arrived(share)
    assert not slots.arrived(share)

    assert (slots.running, slots.promised, slots.free) == (2, 0, 0)


async def test_an_attempt_resumes_only_when_another_ends_if_all_run(
    autojump_clock: trio.testing.MockClock,
) -> None:
    slots = Slots(1)
    share = slots.share(None)
    await promised(slots, share)
    slots.arrived(share)
    slots.suspend(share)
    await promised(slots, share)
    slots.arrived(share)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.resume, share)
        await trio.testing.wait_all_tasks_blocked()
        assert slots.running == 1
        assert slots.waiting == 1
        slots.ended(share)

    assert (slots.running, slots.waiting) == (1, 0)


async def test_a_resuming_attempt_goes_before_a_pull() -> None:
    slots = Slots(1)
    share = slots.share(None)
    await promised(slots, share)
    slots.arrived(share)
    slots.suspend(share)
    await promised(slots, share)
    slots.arrived(share)
    order: list[str] = []

    async def resume() -> None:
        await slots.resume(share)
        order.append("resumed")
        slots.ended(share)

    async def pull() -> None:
        await slots.promise(share)
        order.append("pulled")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pull)
        nursery.start_soon(resume)
        await trio.testing.wait_all_tasks_blocked()
        slots.ended(share)

    assert order == ["resumed", "pulled"]


async def test_a_cancelled_resume_counts_as_running() -> None:
    slots = Slots(1)
    share = slots.share(None)
    await promised(slots, share)
    slots.arrived(share)
    slots.suspend(share)
    await promised(slots, share)
    slots.arrived(share)

    with trio.move_on_after(0):
        await slots.resume(share)

    assert (slots.running, slots.waiting) == (2, 0)


@pytest.mark.parametrize("consumers", [2, 3, 7])
async def test_an_idle_consumer_leaves_slots_to_the_others(consumers: int) -> None:
    slots = Slots(70)
    shares = [slots.share(None) for _ in range(consumers)]

    batches = [await promised(slots, share) for share in shares]

    assert all(batch >= 1 for batch in batches)
    assert sum(batches) <= 70
    assert max(batches) <= 70 // consumers + 1


async def test_a_consumer_that_used_its_promises_up_pulls_again_at_once() -> None:
    slots = Slots(8)
    share, _other = slots.share(None), slots.share(None)
    first = await promised(slots, share)
    assert slots.arrived(share)
    second = await promised(slots, share)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.run)
        nursery.start_soon(slots.promise, share)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(second):
            assert slots.arrived(share)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert (first, second) == (1, 2)
    assert share.promised > 0


async def test_idle_consumers_leave_all_slots_to_a_busy_one() -> None:
    """Ten task types on eight slots: the idle ones wait for messages, but hold no slot."""
    slots = Slots(8)
    busy, *idle = [slots.share(None) for _ in range(10)]
    for share in (*idle, busy):
        assert await promised(slots, share) == 1
    assert slots.free == 8

    assert slots.arrived(busy)
    batch = await promised(slots, busy)

    assert batch == 2
    assert slots.free == 5


async def test_an_idle_consumer_s_message_runs_on_any_slot_that_does_not() -> None:
    slots = Slots(2)
    busy, idle, other = (slots.share(None) for _ in range(3))
    for share in (busy, idle, other):
        await promised(slots, share)
    assert slots.arrived(busy)
    await promised(slots, busy)

    assert slots.arrived(idle)
    assert not slots.arrived(other)
    assert slots.running == 2


async def test_a_message_that_was_handed_back_gets_a_slot_of_its_own() -> None:
    slots = Slots(1)
    busy, unlucky = slots.share(None), slots.share(None)
    await promised(slots, busy)
    await promised(slots, unlucky)
    assert slots.arrived(busy)
    assert not slots.arrived(unlucky)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.run)
        nursery.start_soon(slots.promise, unlucky)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(slots.promise, busy)
        await trio.testing.wait_all_tasks_blocked()
        slots.ended(busy)
        await trio.testing.wait_all_tasks_blocked()
        assert (unlucky.promised, unlucky.standing, busy.promised) == (1, False, 0)
        assert slots.free == 0
        nursery.cancel_scope.cancel()


async def test_slots_that_come_free_together_are_not_a_pull_each() -> None:
    slots = Slots(64)
    shares = [slots.share(None) for _ in range(64)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.run)
        for share in shares:
            assert await promised(slots, share) == 1
            assert slots.arrived(share)
        for share in shares:
            nursery.start_soon(slots.promise, share)
        await trio.testing.wait_all_tasks_blocked()
        assert slots.promised == 0

        for share in shares:
            slots.ended(share)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert slots.promised == 64
    assert sum(share.open_pulls for share in shares) <= 32
