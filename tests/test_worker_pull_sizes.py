"""How much a consumer asks for at a time when others wait for slots, and by which pace."""

import pytest
import trio
import trio.testing

from trio_dagnats.worker.intake.pull_sizes import Pace, pull_size


@pytest.mark.parametrize(
    ("slots", "busy", "size"),
    [(64, 1, 64), (64, 2, 32), (1000, 3, 333), (64, 10, 8), (256, 100, 8), (1, 5, 8)],
)
def test_a_slow_worker_shares_its_slots_equally_but_no_pull_is_tiny(
    slots: int, busy: int, size: int
) -> None:
    """For fewer than eight messages the server's work for a pull is not worth it."""
    assert pull_size(slots, busy, 0.0) == size


@pytest.mark.parametrize(("pace", "size"), [(500.0, 8), (1500.0, 15), (5000.0, 50)])
def test_a_hundred_consumers_have_all_had_their_turn_within_a_second(
    pace: float, size: int
) -> None:
    assert pull_size(256, 100, pace) == size


@pytest.mark.parametrize(("slots", "most"), [(64, 32), (256, 128), (1000, 500)])
def test_a_fast_worker_leaves_half_of_its_slots_to_others(slots: int, most: int) -> None:
    """So that two pulls are under way."""
    assert pull_size(slots, 2, 1e6) == pull_size(slots, 100, 1e6) == most


@pytest.mark.parametrize("busy", [1, 2, 10, 100])
def test_a_faster_worker_asks_for_no_less(busy: int) -> None:
    sizes = [pull_size(256, busy, pace) for pace in (0.0, 1.0, 256.0, 2000.0, 100_000.0)]

    assert sizes == sorted(sizes)


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
    """One attempt that ends at once would else count as a thousand a second."""
    pace = Pace()
    pace.ended()
    await trio.sleep(0.025)
    pace.take()

    assert pace.rate == 0.0

    await trio.sleep(0.025)
    pace.take()

    assert pace.rate == pytest.approx(20.0)
