"""nats-py through trio-asyncio, with a hot path of its own.

Imports nats, asyncio and trio_asyncio, so it is itself imported only when a connection is opened
(``transport.open``). Private names of nats-py stand in ``private`` alone.
"""
