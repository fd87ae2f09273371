"""What the local engine does, flow by flow: in virtual time, on a real server, on a DagNats one."""

import pytest
import trio
from engine_flows import FLOWS, Flow, check, make_worker, play
from trio.testing import MockClock

from trio_dagnats import Client
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.testing import Harness
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import Broker


@pytest.mark.parametrize("name", FLOWS)
async def test_a_flow_ends_as_it_should(
    autojump_clock: MockClock, harness: Harness, name: str
) -> None:
    flow, broker = FLOWS[name](), harness.broker
    async with LocalEngine(broker), Client(broker) as client, make_worker(broker):
        run = await play(client, flow, broker)

        await check(run, flow)


async def test_all_flows_end_as_they_should_on_a_real_server() -> None:
    async with Server() as server, LocalEngine(server.url):
        await play_all(server.url, list(FLOWS))


UNLIKE = {
    "map_empty": "runs for ever there (contract H10)",
    "recovered": "two steps share a handler there in vain",
    "approved": "waits there for an answer over HTTP",
    "rejected": "the same",
}
"""Flows that a DagNats engine does otherwise, and why."""


@pytest.mark.live
@pytest.mark.parametrize("name", [name for name in FLOWS if name not in UNLIKE])
async def test_a_flow_ends_the_same_on_a_dagnats_engine(name: str, live_url: str) -> None:
    await play_all(live_url, [name])


async def play_all(url: str, names: list[str]) -> None:
    """Play flows at once, and check how they end."""
    async with (
        open_broker(url) as broker,
        Client(broker) as client,
        make_worker(url),
        trio.open_nursery() as nursery,
    ):
        for name in names:
            nursery.start_soon(play_and_check, client, FLOWS[name](), broker)


async def play_and_check(client: Client, flow: Flow, broker: Broker) -> None:
    """Play a flow, and check how it ends."""
    await check(await play(client, flow, broker), flow)
