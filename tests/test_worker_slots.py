from random import Random

import pytest
import trio
import trio.testing

from trio_dagnats.worker.intake.slots import Share, Slots


async def promised(slots: Slots, share: Share) -> int:
    """Pull for whatever is free now."""
    with trio.fail_after(1):
        return await slots.promise(share)


def consumer(slots: Slots, left: int, limit: int | None = None) -> Share:
    """Add a consumer whose last message left so many behind, and that knows it already."""
    share = slots.share(slots.quota(limit))
    share.left_behind = lambda: left
    share.backlog = left
    return share


async def test_a_pull_is_promised_all_free_slots() -> None:
    slots = Slots(5)

    assert await promised(slots, slots.share(slots.quota(None))) == 5
    assert (slots.free, slots.promised) == (0, 5)


async def test_a_consumer_pulls_no_more_than_its_own_limit() -> None:
    slots = Slots(5)

    assert await promised(slots, slots.share(slots.quota(2))) == 2


async def test_the_consumers_of_a_handler_have_its_quota_together() -> None:
    slots = Slots(10)
    quota = slots.quota(3)
    one, other, _else = slots.share(quota), slots.share(quota), slots.share(slots.quota(None))
    one.backlog = other.backlog = 5

    assert await promised(slots, one) == 3
    with trio.move_on_after(0) as scope:
        await slots.promise(other)
    assert scope.cancelled_caught
    for _ in range(3):
        assert slots.arrived(one)

    assert not slots.arrived(other)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.run)
        await trio.testing.wait_all_tasks_blocked()
        slots.ended(one)
        assert await promised(slots, other) == 1
        nursery.cancel_scope.cancel()


async def test_an_arrival_turns_a_promise_into_a_running_attempt() -> None:
    slots = Slots(2)
    share = slots.share(slots.quota(None))
    await promised(slots, share)

    assert slots.arrived(share)
    assert (slots.free, slots.promised, slots.running) == (0, 1, 1)


async def test_an_arrival_without_promise_takes_a_free_slot_or_none() -> None:
    slots = Slots(1)
    share = slots.share(slots.quota(None))

    assert slots.arrived(share)
    assert not slots.arrived(share)


async def test_promises_that_return_are_free_again() -> None:
    slots = Slots(3)
    share = slots.share(slots.quota(None))
    await promised(slots, share)

    slots.returned(share, 3)

    assert (slots.free, slots.promised) == (3, 0)


async def test_a_pull_waits_until_a_slot_is_free(autojump_clock: trio.testing.MockClock) -> None:
    slots = Slots(1)
    share = slots.share(slots.quota(None))
    await promised(slots, share)
    slots.arrived(share)
    with trio.move_on_after(10) as scope:
        await slots.promise(share)
    assert scope.cancelled_caught

    slots.ended(share)

    assert await promised(slots, share) == 1


async def test_an_attempt_that_waits_frees_its_slot() -> None:
    slots = Slots(1)
    share = slots.share(slots.quota(None))
    await promised(slots, share)
    slots.arrived(share)

    slots.suspend(share)

    assert (slots.free, slots.running, slots.waiting) == (1, 0, 1)


async def test_an_attempt_resumes_at_once_on_a_slot_that_is_only_promised() -> None:
    """An open pull lasts up to 30 s; a signal must not wait for its end."""
    slots = Slots(1)
    share = slots.share(slots.quota(None))
    await promised(slots, share)
    slots.arrived(share)
    slots.suspend(share)
    await promised(slots, share)

    with trio.fail_after(1):
        await slots.resume(share)

    assert (slots.free, slots.promised, slots.running) == (-1, 1, 1)


async def test_an_overdrawn_promise_is_handed_back_once() -> None:
    slots = Slots(2)
    share = slots.share(slots.quota(None))
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
    share = slots.share(slots.quota(None))
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
    share = slots.share(slots.quota(None))
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
    share = slots.share(slots.quota(None))
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
    shares = [slots.share(slots.quota(None)) for _ in range(consumers)]

    batches = [await promised(slots, share) for share in shares]

    assert all(batch >= 1 for batch in batches)
    assert sum(batches) <= 70
    assert max(batches) <= 70 // consumers + 1


async def test_a_consumer_that_used_its_promises_up_pulls_again_at_once() -> None:
    slots = Slots(8)
    share, _other = consumer(slots, 50), slots.share(slots.quota(None))
    first = await promised(slots, share)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.run)
        nursery.start_soon(slots.promise, share)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(first):
            assert slots.arrived(share)
        slots.ended(share)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert (first, share.promised) == (8, 1)


async def test_idle_consumers_leave_all_slots_to_a_busy_one() -> None:
    """Ten task types on eight slots: the idle ones wait for messages, but hold no slot."""
    slots = Slots(8)
    busy, *idle = [slots.share(slots.quota(None)) for _ in range(10)]
    for share in (*idle, busy):
        assert await promised(slots, share) == 1
    assert slots.free == 8

    busy.left_behind = lambda: 50
    assert slots.arrived(busy)

    assert await promised(slots, busy) == 7
    assert busy.for_backlog
    assert slots.free == 0


async def test_no_more_is_asked_for_than_is_known_to_be_there() -> None:
    """What is not there would keep its slot until the pull ends."""
    slots = Slots(8)
    share, *_others = consumer(slots, 3), *(slots.share(slots.quota(None)) for _ in range(9))

    assert await promised(slots, share) == 3
    for left in (2, 1, 0):
        share.left_behind = lambda left=left: left  # type: ignore[misc]
        assert slots.arrived(share)

    assert await promised(slots, share) == 1
    assert (share.standing, share.for_backlog) == (True, False)


async def test_a_pull_that_ends_early_makes_its_consumer_idle() -> None:
    slots = Slots(8)
    share, *_others = consumer(slots, 5), *(slots.share(slots.quota(None)) for _ in range(9))
    assert await promised(slots, share) == 5
    assert slots.arrived(share)

    slots.returned(share, 4)

    assert await promised(slots, share) == 1
    assert share.standing


async def test_a_consumer_among_several_has_one_pull_open(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The end of a pull that may only bring what is there does not say how much it has left."""
    slots = Slots(64)
    share, _other = consumer(slots, 50), consumer(slots, 50)
    await promised(slots, share)
    assert slots.free > 0

    with trio.move_on_after(10) as scope:
        await slots.promise(share)

    assert scope.cancelled_caught


async def test_a_pull_that_waits_for_the_one_before_it_can_be_cancelled() -> None:
    slots = Slots(16)
    share, _other = slots.share(slots.quota(None)), slots.share(slots.quota(None))
    batch = await promised(slots, share)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.promise, share)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    slots.returned(share, batch)

    assert slots.free == 16
    assert await promised(slots, share) == batch


async def waits_for(slots: Slots, share: Share) -> trio.CancelScope:
    """Let a consumer pull for at most an hour of virtual time."""
    with trio.move_on_after(3600) as scope:
        await slots.promise(share)
    return scope


async def test_a_resume_that_waits_for_its_own_limit_keeps_no_other_consumer_waiting(
    autojump_clock: trio.testing.MockClock,
) -> None:
    slots = Slots(10)
    limited, other = slots.share(slots.quota(1)), consumer(slots, 5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.run)
        await promised(slots, limited)
        assert slots.arrived(limited)
        slots.suspend(limited)
        await promised(slots, limited)
        assert slots.arrived(limited)
        nursery.start_soon(slots.resume, limited)
        await trio.testing.wait_all_tasks_blocked()

        assert not (await waits_for(slots, other)).cancelled_caught
        nursery.cancel_scope.cancel()


async def test_what_a_handed_back_message_held_goes_to_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    slots = Slots(2)
    limited, other = consumer(slots, 5, limit=1), slots.share(slots.quota(None))
    waited = []

    async def pull() -> None:
        waited.append(await waits_for(slots, other))
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.run)
        assert slots.arrived(other)
        await promised(slots, limited)
        assert slots.arrived(limited)
        slots.suspend(limited)
        assert await promised(slots, limited) == 1
        other.backlog = 5
        nursery.start_soon(pull)
        await trio.testing.wait_all_tasks_blocked()
        await slots.resume(limited)
        slots.ended(other)
        await trio.testing.wait_all_tasks_blocked()

        assert not slots.arrived(limited)

    assert not waited[0].cancelled_caught


async def test_an_idle_consumer_whose_message_came_is_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """It waited for a whole round of the busy ones otherwise, each with its full turn."""
    slots = Slots(8)
    busy = [consumer(slots, 1000) for _ in range(10)]
    idle = slots.share(slots.quota(None))
    served: list[Share] = []

    async def pull(share: Share) -> None:
        await slots.promise(share)
        served.append(share)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.run)
        assert await promised(slots, idle) == 1  # a standing credit, without a slot
        nursery.start_soon(pull, idle)
        assert await promised(slots, busy[0]) == 8
        for _ in range(8):
            assert slots.arrived(busy[0])
        for share in busy[1:]:
            nursery.start_soon(pull, share)
        await trio.testing.wait_all_tasks_blocked()

        assert not slots.arrived(idle)  # handed back
        slots.ended(busy[0])
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert served == [idle]


@pytest.mark.parametrize(("consumers", "each"), [(2, 50), (5, 20), (20, 8)])
async def test_busy_consumers_share_the_slots(
    consumers: int, each: int, autojump_clock: trio.testing.MockClock
) -> None:
    """Equally, but a pull for fewer than eight is not worth it: the last ones wait."""
    slots = Slots(100)
    shares = [consumer(slots, 1000) for _ in range(consumers)]
    batches: list[int] = []

    for share in shares:
        with trio.move_on_after(1):
            batches.append(await slots.promise(share))

    assert slots.free == 0
    assert batches[:-1] == [each] * (len(batches) - 1)
    assert 0 < batches[-1] <= each


@pytest.mark.parametrize(("tasks", "turn"), [(0, 8), (150, 15), (5000, 128)])
async def test_turns_grow_with_the_pace(
    tasks: int, turn: int, autojump_clock: trio.testing.MockClock
) -> None:
    slots = Slots(256)
    busy, waiting, *_others = [consumer(slots, 1000) for _ in range(100)]
    await promised(slots, waiting)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.run)
        nursery.start_soon(slots.promise, waiting)
        await trio.sleep(0.1)
        for _ in range(tasks):
            assert slots.arrived(busy)
            slots.ended(busy)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert await promised(slots, busy) == turn


async def test_a_turn_that_found_too_few_slots_goes_on_first() -> None:
    """The server's work for a turn is the same, however many pulls it takes."""
    slots = Slots(16)
    begun, next_one, *_others = [consumer(slots, 100) for _ in range(10)]
    for _ in range(13):
        assert slots.arrived(next_one)
    assert await promised(slots, begun) == 3
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.run)
        nursery.start_soon(slots.promise, next_one)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3):
            assert slots.arrived(begun)
        nursery.start_soon(slots.promise, begun)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(7):
            slots.ended(next_one)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert (begun.promised, next_one.promised) == (5, 2)


def check_sums(slots: Slots) -> None:
    assert slots.free + slots.promised - slots.standing + slots.running == slots.capacity
    assert slots.promised == sum(share.promised for share in slots.shares)
    assert slots.standing == sum(share.standing for share in slots.shares)
    assert 0 <= slots.running <= slots.capacity
    assert all(0 <= share.quota.running <= share.quota.limit for share in slots.shares)


async def attempt(slots: Slots, share: Share, seconds: float) -> None:
    """Hold a slot for a while."""
    await trio.sleep(seconds)
    slots.ended(share)
    check_sums(slots)


async def serve(slots: Slots, share: Share, messages: int, chance: Random) -> None:
    """Pull until all messages have had a slot; a server that answers late, tasks of all lengths."""
    left = messages
    share.left_behind = lambda: left
    async with trio.open_nursery() as nursery:
        while left:
            await slots.promise(share)
            await trio.sleep(chance.choice([0.0, 0.01]))
            while share.promised and left:
                left -= 1
                if slots.arrived(share):
                    nursery.start_soon(attempt, slots, share, chance.choice([0.0, 0.01, 1.0]))
                else:
                    left += 1
                check_sums(slots)
            slots.returned(share, share.promised)
            check_sums(slots)


@pytest.mark.parametrize("seed", range(40))
async def test_the_ledger_adds_up_whatever_comes(
    seed: int, autojump_clock: trio.testing.MockClock
) -> None:
    """No slot is lost, none is counted twice, and each message has its slot in the end."""
    chance = Random(seed)
    slots = Slots(chance.choice([1, 3, 8, 40]))
    shares = [
        slots.share(slots.quota(chance.choice([None, 2]))) for _ in range(chance.choice([2, 5, 12]))
    ]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.run)
        with trio.fail_after(300):
            async with trio.open_nursery() as serving:
                for share in shares:
                    serving.start_soon(serve, slots, share, chance.choice([1, 30]), chance)
        nursery.cancel_scope.cancel()

    assert (slots.free, slots.running) == (slots.capacity, 0)


async def test_an_idle_consumer_s_message_runs_on_any_slot_that_does_not() -> None:
    slots = Slots(2)
    busy, idle, other = (slots.share(slots.quota(None)) for _ in range(3))
    for share in (busy, idle, other):
        await promised(slots, share)
    assert slots.arrived(busy)
    await promised(slots, busy)

    assert slots.arrived(idle)
    assert not slots.arrived(other)
    assert slots.running == 2


async def test_a_message_that_was_handed_back_gets_a_slot_of_its_own() -> None:
    slots = Slots(1)
    busy, unlucky = slots.share(slots.quota(None)), slots.share(slots.quota(None))
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
        assert (unlucky.promised, unlucky.standing) == (1, False)
        assert (busy.promised, busy.standing) == (1, True)
        assert slots.free == 0
        nursery.cancel_scope.cancel()


async def test_slots_that_come_free_together_are_not_a_pull_each() -> None:
    slots = Slots(64)
    shares = [consumer(slots, 100) for _ in range(64)]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slots.run)
        for share in shares:
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
