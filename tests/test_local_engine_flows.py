"""What the local engine does, flow by flow: in virtual time, on a real server, on a DagNats one."""

import pytest
import trio
from engine_flows import FLOWS, check, make_worker, play
from trio.testing import MockClock

from trio_dagnats import Client
from trio_dagnats.local import LocalEngine, Server
from trio_dagnats.testing import Harness
from trio_dagnats.transport import open_broker


@pytest.mark.parametrize("name", FLOWS)
async def test_a_flow_ends_as_it_should(
    autojump_clock: MockClock, harness: Harness, name: str
) -> None:
    flow, broker = FLOWS[name](), harness.broker
    async with LocalEngine(broker), Client(broker) as client, make_worker(broker):
        run = await play(client, flow, broker)

        await check(run, flow)


async def test_all_flows_end_as_they_should_on_a_real_server() -> None:
    async with Server() as server, open_broker(server.url) as broker, LocalEngine(server.url):
        async with Client(server.url) as client, make_worker(server.url):
            async with trio.open_nursery() as nursery:
                for make in FLOWS.values():
                    nursery.start_soon(play_and_check, client, make, broker)


async def play_and_check(client: Client, make: object, broker: object) -> None:
    flow = make()  # type: ignore[operator]
    run = await play(client, flow, broker)  # type: ignore[arg-type]
    await check(run, flow)
