"""nats-py through trio-asyncio: dialling, watching, and lending its connection to our own protocol.

The only room that may import nats, asyncio and trio_asyncio, and therefore imported itself only
when a connection is opened (``transport.open``). ``connection`` is our own client, ``own_path``
and ``borrowed`` are the two paths. ``private`` and ``tcp`` hold every private name of nats-py,
behind a self-check; those that trio-asyncio needs of asyncio are in ``loader``, which is run first.
``dialling`` connects to a server, ``refusals`` says what it, or we, have against that.

May import ``transport.nats``, ``transport.port`` and what stands beside it, ``wire``, ``errors``
and ``logs``. Called by ``transport.open``.

Glossary: *own* is a connection that we dialled, *borrowed* a client that the user connected.
"""

from trio_dagnats.transport.nats_py.loader import load

load()
