"""The port onto a server, and what stands behind it: nats-py through trio-asyncio, or memory.

May import ``wire`` and ``errors``; only ``nats_py`` imports nats, asyncio or trio_asyncio, and only
when a connection is opened. Called by ``worker``, ``client`` and ``local``.
"""

from trio_dagnats.transport.open import NatsSource, open_broker
from trio_dagnats.transport.options import ConnectOptions

__all__ = ["ConnectOptions", "NatsSource", "open_broker"]
