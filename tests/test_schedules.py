"""Random schedules: whatever happens to workers and connections, the invariants hold."""

import pytest
from schedules import play

SEEDS = 60


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_must_hold_holds_after_a_storm(seed: int) -> None:
    play(seed)
