from itertools import product

import pytest
import trio
import trio.testing

from trio_dagnats.worker.intake.pull_sizes import PACE_SPAN, ROUND, WORTH, Pace, turn

CAPACITIES = (1, 8, 64, 256, 1000)
BUSY = (1, 2, 3, 10, 100, 1000)
PACES = (0.0, 1.0, 30.0, 256.0, 2000.0, 10_000.0, 100_000.0)


@pytest.mark.parametrize(("capacity", "busy", "pace"), [*product(CAPACITIES, BUSY, PACES)])
def test_a_round_is_short_unless_turns_are_as_small_as_they_may_be(
    capacity: int, busy: int, pace: float
) -> None:
    found = turn(capacity, busy, pace)

    least = max(WORTH, capacity // busy)
    assert found >= least
    assert found == least or found * busy <= pace * ROUND


@pytest.mark.parametrize(("capacity", "pace"), [*product(CAPACITIES, PACES)])
def test_a_turn_leaves_slots_to_others(capacity: int, pace: float) -> None:
    assert all(turn(capacity, busy, pace) <= max(WORTH, capacity // 2) for busy in BUSY[1:])


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_without_a_pace_the_slots_are_shared_equally(capacity: int) -> None:
    assert [turn(capacity, busy, 0.0) for busy in BUSY] == [
        max(WORTH, capacity // busy) for busy in BUSY
    ]


@pytest.mark.parametrize("busy", BUSY)
def test_a_faster_worker_has_no_shorter_turns(busy: int) -> None:
    turns = [turn(256, busy, pace) for pace in PACES]

    assert turns == sorted(turns)


async def test_a_pace_is_that_of_the_time_since_it_was_taken(
    autojump_clock: trio.testing.MockClock,
) -> None:
    pace = Pace()
    for ended, seconds, rate in ((50, 0.5, 100.0), (0, 1.0, 0.0), (1000, 0.1, 10_000.0)):
        for _ in range(ended):
            pace.ended()
        await trio.sleep(seconds)
        pace.take()
        assert pace.rate == pytest.approx(rate)


async def test_a_pace_is_not_taken_of_a_moment(autojump_clock: trio.testing.MockClock) -> None:
    pace = Pace()
    pace.ended()
    await trio.sleep(PACE_SPAN / 2)
    pace.take()

    assert pace.rate == 0.0

    await trio.sleep(PACE_SPAN / 2)
    pace.take()

    assert pace.rate == pytest.approx(1 / PACE_SPAN)
