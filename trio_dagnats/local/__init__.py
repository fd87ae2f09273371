"""A real nats-server as a child process, and a local engine for it: development and tests.

May import ``wire``, ``transport`` and ``errors``. Called by the user, the command line and tests.
"""

from trio_dagnats.local.engine import LocalEngine
from trio_dagnats.local.server import Server

__all__ = ["LocalEngine", "Server"]
