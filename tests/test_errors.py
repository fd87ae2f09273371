"""What is left of a group that our nurseries have made."""

import ast
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

import trio_dagnats
from trio_dagnats.cli.interrupt import _interruptible
from trio_dagnats.errors import (
    BrokerError,
    ConnectError,
    NotStored,
    asked_at_once,
    unwrap_group,
    without_groups,
)

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
    assert unwrap_group(ExceptionGroup("", members)) is left


@pytest.mark.parametrize("members", [[ENDED, OTHER], [LATE, LATE], [ENDED, LATE, OTHER]])
def test_different_errors_stay_together(members: list[Exception]) -> None:
    group = ExceptionGroup("", members)

    assert unwrap_group(group) is group


@pytest.mark.parametrize(
    ("members", "left"),
    [([LATE, NotStored("too")], LATE), ([LATE, ExceptionGroup("", [ENDED])], LATE)],
)
def test_of_what_is_asked_at_once_the_first_error_stands_for_all(
    members: list[Exception], left: Exception
) -> None:
    with pytest.raises(BrokerError) as found, asked_at_once():
        raise ExceptionGroup("", members)
    assert found.value is left


def test_what_is_no_error_of_the_server_stays_in_its_group() -> None:
    with pytest.raises(ExceptionGroup), asked_at_once():
        raise ExceptionGroup("", [LATE, OTHER])


CAUSE = KeyError("cause")


async def fail() -> None:
    raise OTHER from CAUSE


async def in_a_nursery() -> None:
    with without_groups():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)


async def in_a_command() -> None:
    await _interruptible(fail)


@pytest.mark.parametrize("border", [in_a_nursery, in_a_command])
async def test_an_error_keeps_its_cause_where_our_groups_end(
    border: Callable[[], Awaitable[None]],
) -> None:
    with pytest.raises(ValueError, match="mine") as raised:
        await border()

    assert raised.value is OTHER
    assert raised.value.__cause__ is CAUSE


async def raise_own(own: Exception) -> None:
    with without_groups() as border:
        async with trio.open_nursery():
            with border.callers_block():
                raise own


async def test_a_group_of_the_callers_own_stays_as_it_is() -> None:
    with pytest.raises(ExceptionGroup, match="my own"):
        await raise_own(ExceptionGroup("my own", [OTHER]))


def test_nobody_wipes_out_the_cause_of_an_error_in_a_group() -> None:
    """Whoever ends groups does it by ``without_groups``."""
    found = [
        f"{path.name}:{node.lineno}"
        for path in Path(trio_dagnats.__file__).parent.rglob("*.py")
        for handler in ast.walk(ast.parse(path.read_text()))
        if isinstance(handler, ast.ExceptHandler)
        and "Group" in ast.unparse(handler.type or ast.Pass())
        for node in ast.walk(handler)
        if isinstance(node, ast.Raise) and ast.unparse(node).endswith("from None")
    ]

    assert not found
