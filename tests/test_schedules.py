"""Random schedules: whatever happens to workers and connections, the invariants hold."""

import pytest

from benchmarks import schedules

SEEDS = 60


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_must_hold_holds_after_a_storm(seed: int) -> None:
    schedules.play(seed)


def test_a_seed_that_fails_is_told_with_the_command_that_plays_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schedules, "OUTCOMES", ())  # as if no worker stored any

    with pytest.raises(ExceptionGroup) as caught:
        schedules.play(3)

    assert caught.group_contains(schedules.Broken)
    (note,) = caught.value.__notes__
    assert "python -m benchmarks.schedules --seed 3 --count 1" in note
