"""The port onto a server, and what stands behind it: nats-py through trio-asyncio, or memory.

::

    port        the protocols Broker, Delivery, Intake, in words that know no client library
    open        from a URL, a client or a broker to a Broker for the length of a block
    nats/       the port on a NATS connection, whoever has dialled it
    nats_py/    connections by nats-py: our own, and one that the user made
    memory/     the port without a server, for tests

Another client library: a room beside ``nats_py`` with a ``Path`` and a ``Holder`` of its own (see
``nats/link.py``), and a line in ``open``; the port's twenty methods are in ``nats/`` already.

May import ``wire`` and ``errors``; only ``nats_py`` imports nats, asyncio or trio_asyncio, and only
when a connection is opened or a program asks here for ``trio_asyncio``. Called by ``worker``,
``client`` and ``local``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from trio_dagnats.transport.open import NatsSource, open_broker
from trio_dagnats.transport.options import ConnectOptions

if TYPE_CHECKING:
    import trio_asyncio as trio_asyncio

__all__ = ["ConnectOptions", "NatsSource", "open_broker"]


def __getattr__(name: str) -> object:
    """Give out trio-asyncio, for programs that connect a nats-py client themselves.

    By itself it does not import on Python 3.14; late, because it changes asyncio for the process.
    """
    if name != "trio_asyncio":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import_module(f"{__name__}.nats_py")
    return import_module(name)
