"""For tests of handlers and workflows: an in-memory server, a one-handler harness, fixtures.

May import every other room. In a ``conftest.py``::

    pytest_plugins = ["trio_dagnats.testing.fixtures"]
"""

from trio_dagnats.testing.harness import Harness, Outcome
from trio_dagnats.transport.memory import MemoryBroker, MemoryServer

__all__ = ["Harness", "MemoryBroker", "MemoryServer", "Outcome"]
