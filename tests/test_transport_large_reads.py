"""Many bytes at once from a server that lets only few wait on a connection."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import trio

from trio_dagnats.local import Server
from trio_dagnats.transport import open_broker
from trio_dagnats.transport.port import Broker

KEYS = [f"k{number}" for number in range(20)]
Read = Callable[[Broker, float], Awaitable[int]]

pytestmark = pytest.mark.usefixtures("either_path")


async def many(broker: Broker, deadline: float) -> int:
    return len(await broker.kv_get_many("b", [*KEYS, "absent"], deadline=deadline))


async def entries(broker: Broker, deadline: float) -> int:
    return len(await broker.kv_entries("b", deadline=deadline))


async def records(broker: Broker, deadline: float) -> int:
    return len(await broker.records("KV_b", "$KV.b.>", deadline=deadline))


@pytest.fixture(params=[(8, 1), (8, 8)], ids=["small messages", "messages as large as what waits"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    """A server with so many megabytes of ``max_pending`` and ``max_payload``."""
    pending, payload = request.param
    config = tmp_path / "server.conf"
    config.write_text(f"max_pending: {pending}MB\nmax_payload: {payload}MB\n")
    async with Server(config=config) as found, open_broker(found.url) as broker:
        deadline = trio.current_time() + 30
        await broker.ensure_bucket("b", deadline=deadline)
        value = b"x" * (payload * 900_000)
        for key in KEYS[: 20 if payload == 1 else 4]:
            await broker.kv_put("b", key, value, deadline=deadline)
        yield found


@pytest.mark.parametrize("read", [many, entries, records])
async def test_what_is_too_much_for_one_answer_is_read_all_the_same(
    server: Server, read: Read
) -> None:
    async with open_broker(server.url) as broker:
        stored = 20 if broker.max_payload < 2_000_000 else 4

        assert await read(broker, trio.current_time() + 30) == stored
    assert "Slow Consumer" not in server.log
