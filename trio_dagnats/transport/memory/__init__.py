"""An in-memory server that passes the same contract suite as nats-server: for pure tests.

It needs no process and no socket, so its time can be virtual (trio's ``autojump_clock``): a lease
of five minutes lapses in a test of a millisecond. And it can fail on purpose, where a real server
would have to be killed at the right moment.

::

    MemoryBroker ── Line ──┬── MemoryServer ── Stream ── Consumer
    (a connection)         │   (one for all)   (a bucket is one, too)
    MemoryBroker ── Line ──┘         │
                                 Clockwork: makes every call that is not the caller's own

====================  ==========================================================================
``broker``            the port, and the faults that a test can order
``line``              what is on its way: can be cut, mended, held
``intake``            deliveries and pulls, on the connection's side
``posts``, ``core``   stores without a task; core messages and requests
``server``            streams, subscriptions, the wall clock
``streams``           what is kept: ids, conditions, ages
``consumers``         who gets which message: leases, redeliveries, pulls
``clockwork``         callbacks in order, and calls at given times
``subjects``          wildcards
====================  ==========================================================================

May import ``transport.port`` and what stands beside it, ``wire`` and ``errors``; never
``transport.nats``, so that an error there is none here. Called by ``testing`` (the harness and the
fixtures) and by the tests; never by a worker of its own accord.

Glossary: *cut* is a lost connection, *held* a stuck one whose bytes arrive late, a *turn* the time
that a request to the server takes.
"""

from trio_dagnats.transport.memory.broker import MemoryBroker
from trio_dagnats.transport.memory.server import MemoryServer

__all__ = ["MemoryBroker", "MemoryServer"]
