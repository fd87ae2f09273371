"""An in-memory server that passes the same contract suite as nats-server: for pure tests.

May import ``transport.port``, ``wire`` and ``errors``. It needs no process and no socket, so its
time can be virtual (trio's ``autojump_clock``).
"""

from trio_dagnats.transport.memory.broker import MemoryBroker
from trio_dagnats.transport.memory.server import MemoryServer

__all__ = ["MemoryBroker", "MemoryServer"]
