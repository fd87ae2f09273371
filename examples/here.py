"""Where the examples run: an engine of their own, or the one that an environment variable names."""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trio_dagnats.local import LocalEngine, Server

logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s")


@asynccontextmanager
async def engine() -> AsyncIterator[str]:
    """Give the URL of a server with an engine on it.

    With ``TRIO_DAGNATS_LIVE_URL`` set, that is the one; else a nats-server child process with the
    local engine, gone when the block ends.
    """
    live = os.environ.get("TRIO_DAGNATS_LIVE_URL")
    if live:
        yield live
        return
    async with Server() as server, LocalEngine(server.url):
        yield server.url
