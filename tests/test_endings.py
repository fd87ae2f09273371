"""Every pair of how a handler ends and what the network does: what must hold, holds.

At most one outcome per attempt, and the right one; no ACK before it is stored; the message answered
as the rule says, once per delivery, and never after its lease; no two executions at once; every
task settled in the end; no slot and no attempt left.
"""

from collections.abc import Awaitable, Callable

import pytest
from endings import ENDINGS, NETWORKS, Ending, Pair
from trio.testing import MockClock

LEASES = {"a long lease": 300.0, "a short lease": 30.0}
"""Longer and shorter than what a dead connection can last: the outcome is sent in two ways."""


@pytest.mark.parametrize("ack_wait", LEASES.values(), ids=LEASES.keys())
@pytest.mark.parametrize("network", NETWORKS, ids=lambda f: f.__name__.replace("_", " "))
@pytest.mark.parametrize("ending", ENDINGS, ids=lambda e: e.name)
async def test_whatever_the_network_does_an_ending_is_settled_once(
    autojump_clock: MockClock,
    ending: Ending,
    network: Callable[[Pair], Awaitable[None]],
    ack_wait: float,
) -> None:
    await Pair(ending, network, ack_wait).play()
