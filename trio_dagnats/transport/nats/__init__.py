"""nats-py through trio-asyncio, with a hot path of its own.

Imports nats, asyncio and trio_asyncio, so it is itself imported only when a connection is opened
(``transport.open``). Private names of nats-py stand in ``private`` alone, those that trio-asyncio
needs of asyncio in ``loader``, which is run before any other module of this package.
"""

from trio_dagnats.transport.nats.loader import load

load()
