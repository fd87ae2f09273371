"""Opening a broker from whatever the user has: a URL, several, a connected client, a broker.

=====================  ==========================  ==================  ===========================
source                 who connects                who closes          loss for good
=====================  ==========================  ==================  ===========================
a URL, several         ``nats_py.connection``      this block          ``ConnectError`` out of it
a nats-py client       the user                    the user            ``ConnectError`` out of it
a broker               whoever made it             whoever made it     theirs to tell
=====================  ==========================  ==================  ===========================

Called by ``Worker``, ``Client``, ``LocalEngine`` and the command line: the only place that chooses
a room of the transport. nats-py and trio-asyncio are imported in here, at the first connect.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias, Union

from trio_dagnats.errors import UsageError, without_groups
from trio_dagnats.transport.options import ConnectOptions, check_url, take_login
from trio_dagnats.transport.port import Broker

if TYPE_CHECKING:
    from nats.aio.client import Client

NatsSource: TypeAlias = Union[str, Sequence[str], "Client", Broker]
"""A server's URL, several URLs of one cluster, a nats-py client that is connected in the running
trio-asyncio loop (on Python 3.14 of ``trio_dagnats.transport.trio_asyncio``), or a broker."""


def open_broker(
    source: NatsSource, options: ConnectOptions | None = None
) -> AbstractAsyncContextManager[Broker]:
    """Connect for the length of a block.

    A client or a broker that is given stays open after the block. The connection outlives the
    cancellation of the block's body, so that a shielded clean-up in it still finds it.

    Raises:
        UsageError: the source is none of these, or a URL cannot be dialled.
        ConnectError: no usable server within ``connect_timeout``; or, out of the block, the
            connection ended for good.
    """
    if isinstance(source, str):
        return _dial([source], options)
    if isinstance(source, Broker):
        return _as_it_is(source)
    if isinstance(source, Sequence):
        return _dial(list(source), options)
    return _borrow(source, options)


@asynccontextmanager
async def _as_it_is(broker: Broker) -> AsyncIterator[Broker]:
    yield broker


@asynccontextmanager
async def _dial(urls: list[str], options: ConnectOptions | None) -> AsyncIterator[Broker]:
    if not urls:
        raise UsageError("no server URL given; write nats://host:4222")
    checked, options = take_login([check_url(url) for url in urls], options or ConnectOptions())
    # Late: importing trio_asyncio changes asyncio for the whole process (notes B2, rule D15).
    from trio_dagnats.transport.nats_py.connection import dial  # noqa: PLC0415

    async with _connected(dial(checked, options)) as broker:
        yield broker


@asynccontextmanager
async def _borrow(client: "Client", options: ConnectOptions | None) -> AsyncIterator[Broker]:
    options = options or ConnectOptions()
    if replace(options, jetstream_domain=None, jetstream_prefix=None) != ConnectOptions():
        raise UsageError(
            "a connected client has its own options: give a URL to use ConnectOptions, but for the "
            "JetStream domain or prefix"
        )
    if not hasattr(client, "jetstream"):
        raise UsageError(
            f"{type(client).__name__} is no server URL, no list of URLs and no nats-py client"
        )
    from trio_dagnats.transport.nats_py.borrowed import borrow  # noqa: PLC0415 - see above

    async with _connected(borrow(client, options.api)) as broker:
        yield broker


@asynccontextmanager
async def _connected(connection: AbstractAsyncContextManager[Broker]) -> AsyncIterator[Broker]:
    """Raise what went wrong without our nurseries' groups; a group of the body's own stays."""
    with without_groups() as border:
        async with connection as broker:
            with border.callers_block():
                yield broker
