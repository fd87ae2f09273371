"""Servers for the whole suite, and one broker of each kind for the contract."""

import os
import signal
import uuid
from collections.abc import AsyncIterator

import nats
import pytest
from contract_bench import Bench, Sink

from trio_dagnats.local import Server
from trio_dagnats.transport import open_broker, trio_asyncio
from trio_dagnats.transport.nats_py.connection import PUBLIC_PATH
from trio_dagnats.transport.port import Broker

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background so, and the programs under test would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["trio_dagnats.testing.fixtures"]


@pytest.fixture
async def own(nats_server: Server) -> AsyncIterator[Broker]:
    """A connection of our own to the real server."""
    async with open_broker(nats_server.url) as broker:
        yield broker


@pytest.fixture
async def borrowed(nats_server: Server) -> AsyncIterator[Broker]:
    """A broker on a nats-py client that somebody else has connected."""
    async with trio_asyncio.open_loop():
        client = await trio_asyncio.aio_as_trio(nats.connect)(nats_server.url)
        async with open_broker(client) as broker:
            yield broker
        assert client.is_connected
        await trio_asyncio.aio_as_trio(client.close)()


@pytest.fixture(params=["fast", "public"])
def either_path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test on our own bytes, and on nats-py's public calls."""
    if request.param == "public":
        monkeypatch.setenv(PUBLIC_PATH, "1")


@pytest.fixture(params=["memory", "nats", "nats-public"])
async def bench(
    request: pytest.FixtureRequest, memory: Broker, own: Broker, borrowed: Broker
) -> Bench:
    """The three brokers that must behave alike, each with streams of this test's own."""
    broker = {"memory": memory, "nats": own, "nats-public": borrowed}[request.param]
    found = Bench(broker, request.param, uuid.uuid4().hex[:8])
    await found.set_up()
    return found


@pytest.fixture
def sink() -> Sink:
    """A sink for an intake."""
    return Sink()


@pytest.fixture(scope="session")
def live_url() -> str:
    """The URL of a running DagNats engine; tests that need one are skipped without it."""
    url = os.environ.get("TRIO_DAGNATS_LIVE_URL", "")
    if not url:
        pytest.skip("TRIO_DAGNATS_LIVE_URL names no DagNats engine")
    return url
