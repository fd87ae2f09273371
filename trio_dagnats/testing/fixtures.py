"""pytest fixtures: ``pytest_plugins = ["trio_dagnats.testing.fixtures"]`` in a ``conftest.py``.

Needs pytest and pytest-trio (the extra ``dev``), and the extra ``local`` for ``nats_server``.

One nats-server for a session, because it takes a moment to start; a memory server for each test,
because that takes none, and nothing of another test is in it then.
"""

from collections.abc import AsyncIterator, Iterator

import pytest

from trio_dagnats.local import Server
from trio_dagnats.testing.harness import Harness
from trio_dagnats.transport.memory import MemoryBroker, MemoryServer


@pytest.fixture(scope="session")
def nats_server() -> Iterator[Server]:
    """One real nats-server for all tests that leave it as it is."""
    with Server() as server:
        yield server


@pytest.fixture
async def memory_server() -> AsyncIterator[MemoryServer]:
    """An in-memory server of the test's own, without any stream."""
    async with MemoryServer() as server:
        yield server


@pytest.fixture
def memory(memory_server: MemoryServer) -> MemoryBroker:
    """A connection to the test's in-memory server."""
    return MemoryBroker(memory_server)


@pytest.fixture
async def harness() -> AsyncIterator[Harness]:
    """An in-memory server with an engine's streams, for tests of handlers."""
    async with Harness() as found:
        yield found
