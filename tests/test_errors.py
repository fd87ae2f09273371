"""What is left of a group that our nurseries have made."""

import pytest

from trio_dagnats.errors import ConnectError, NotStored, plain

ENDED, LATE, OTHER = ConnectError("ended"), NotStored("late"), ValueError("mine")


@pytest.mark.parametrize(
    ("members", "left"),
    [
        ([ENDED], ENDED),
        ([ENDED, LATE], ENDED),
        ([LATE, ExceptionGroup("", [LATE, ENDED])], ENDED),
        ([LATE], LATE),
    ],
)
def test_what_went_wrong_once_is_raised_without_a_group(
    members: list[Exception], left: Exception
) -> None:
    """What was asked on a connection that has ended goes unanswered: that is no error more."""
    assert plain(ExceptionGroup("", members)) is left


@pytest.mark.parametrize("members", [[ENDED, OTHER], [LATE, LATE], [ENDED, LATE, OTHER]])
def test_different_errors_stay_together(members: list[Exception]) -> None:
    group = ExceptionGroup("", members)

    assert plain(group) is group
