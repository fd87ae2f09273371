"""Every pair of how a handler ends and what the network does: what must hold, holds.

At most one outcome per attempt, and the right one; no ACK before it is stored; the message answered
as the rule says, once per delivery, and never after its lease; no two executions at once; every
task settled in the end; no slot and no attempt left.
"""

from collections.abc import Awaitable, Callable

import pytest
from endings import ENDINGS, NETWORKS, Ending, Pair
from trio.testing import MockClock

MANNERS = {
    "a long lease": (300.0, False),
    "a short lease": (30.0, False),
    "a handler that does not wait for its start": (300.0, True),
}
"""Leases longer and shorter than what a dead connection can last: outcomes are sent in two ways."""


@pytest.mark.parametrize(("ack_wait", "pipelined"), MANNERS.values(), ids=MANNERS.keys())
@pytest.mark.parametrize("network", NETWORKS, ids=lambda f: f.__name__.replace("_", " "))
@pytest.mark.parametrize("ending", ENDINGS, ids=lambda e: e.name)
async def test_whatever_the_network_does_an_ending_is_settled_once(
    autojump_clock: MockClock,
    ending: Ending,
    network: Callable[[Pair], Awaitable[None]],
    ack_wait: float,
    pipelined: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    await Pair(ending, network, ack_wait, pipelined).play()
