"""Streams and durables that somebody deletes, purges or makes again while handlers run."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
from fleet_bench import Fleet, fleet_on

from trio_dagnats.local import Server
from trio_dagnats.wire.names import WORKFLOW_HISTORY

RUNS = [f"r{number}" for number in range(20)]
Act = Callable[[Fleet], Awaitable[object]]


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    """A server of the test's own, which it changes."""
    async with Server() as server, fleet_on(server) as found:
        yield found


async def history_is_made_again(fleet: Fleet) -> None:
    await fleet.make_again(WORKFLOW_HISTORY)


async def history_is_made_again_and_has_older_events(fleet: Fleet) -> None:
    await fleet.make_again(WORKFLOW_HISTORY)
    for run in RUNS:
        body = b'{"type":"workflow.started","run_id":"%b"}' % run.encode()
        await fleet.admin.store(f"history.{run}", body, deadline=trio.current_time() + 10)


async def history_is_purged(fleet: Fleet) -> None:
    await fleet.api(f"STREAM.PURGE.{WORKFLOW_HISTORY}")


async def one_run_is_purged(fleet: Fleet) -> None:
    await fleet.api(f"STREAM.PURGE.{WORKFLOW_HISTORY}", filter="history.r0")


@pytest.mark.parametrize("ack_wait", [20.0, 300.0], ids=["conditional", "plain"])
@pytest.mark.parametrize(
    "act",
    [
        history_is_made_again,
        history_is_made_again_and_has_older_events,
        history_is_purged,
        one_run_is_purged,
    ],
)
async def test_what_was_known_of_a_history_that_is_gone_holds_no_outcome_up(
    fleet: Fleet, act: Act, ack_wait: float
) -> None:
    """The lease would end, with the slot held until then, and all would run again."""
    async with fleet.worker(ack_wait=ack_wait):
        await fleet.put(*RUNS)
        await fleet.until_begun(len(RUNS))
        await act(fleet)

        fleet.may_end.set()
        await fleet.queued(0)
    assert fleet.begun == await fleet.outcomes() == dict.fromkeys(RUNS, 1)
