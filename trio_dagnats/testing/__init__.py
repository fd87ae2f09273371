"""For tests of handlers and workflows: an in-memory server, a one-handler harness, fixtures.

May import every other room. In a ``conftest.py``::

    pytest_plugins = ["trio_dagnats.testing.fixtures"]

Which of them? A handler alone: :class:`Harness`, which gives it one task and returns the outcome. A
workflow: a ``LocalEngine`` and a worker on the harness's broker; it executes all steps. What only a
real server does (TLS, restarts): the fixture ``nats_server``.

The in-memory server has no process and no socket, so trio's clock can be virtual
(``autojump_clock``): an hour of backoff passes at once, and a test of it is exact.
"""

from trio_dagnats.testing.harness import Harness, Outcome
from trio_dagnats.transport.memory import MemoryBroker, MemoryServer

__all__ = ["Harness", "MemoryBroker", "MemoryServer", "Outcome"]
