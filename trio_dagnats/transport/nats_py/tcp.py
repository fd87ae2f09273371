"""nats-py's TCP transport, with connections of our own, a bounded end, and an ear at the socket.

The private names in here are ``_io_writer`` and its kin of the transport; ``private.hooks_fit``
looks whether they are there.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from typing import cast

from nats.aio.client import DEFAULT_BUFFER_SIZE
from nats.aio.transport import TcpTransport

CLOSE_PATIENCE = 1.0
Take = Callable[[bytes], bytes]
"""Takes from the front of what came in what it can, and returns the rest."""


class DialledTcp(TcpTransport):
    """A TCP transport on connections that a ``dialling.Dialler`` has opened."""

    async def take_over(self, sock: socket.socket) -> None:
        """Talk on a new connection, which is asyncio's from now on."""
        streams = await asyncio.open_connection(sock=sock, limit=DEFAULT_BUFFER_SIZE)
        self._bare_io_reader, self._bare_io_writer = self._io_reader, self._io_writer = streams

    def __bool__(self) -> bool:
        """Say yes always: nats-py replaces a transport that says no before it connects."""
        return True


class AbortingTcp(DialledTcp):
    """A TCP transport whose end is bounded (notes A5, rule D12).

    With unsent bytes in the socket, nats-py's own waits for minutes. A dead connection is reset,
    so that bytes still in the kernel die with it and cannot arrive after another worker's.
    """

    reset = True

    def __init__(self, take: Take) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # nats-py types this class in part
        self._take = take

    def listen_in(self) -> None:
        """Take our messages as they arrive: a wake-up of nats-py's reader costs two turns.

        Called for each connection when TLS is up, if there is any: what comes before may be
        anybody's, and is left to nats-py, which refuses or drops it. What the parser raises ends
        the connection: asyncio closes it, and gives the reason to nats-py's reader.
        """
        writer, reader = self._io_writer, self._io_reader
        assert writer is not None
        assert reader is not None
        protocol = cast("asyncio.Protocol", writer.transport.get_protocol())
        feed = protocol.data_received

        def received(data: bytes) -> None:
            # What nats-py has not read yet comes first; unknown where asyncio has another reader.
            rest = data if vars(reader).get("_buffer", True) else self._take(data)
            if rest:
                feed(rest)

        protocol.data_received = received  # type: ignore[method-assign]  # of this one object

    @property
    def writer(self) -> asyncio.StreamWriter | None:
        """The stream's writer, None before the first connect."""
        return self._io_writer

    def close(self) -> None:
        """End the connection at once; by a reset unless it was drained before."""
        writer, bare = self._io_writer, self._bare_io_writer
        if writer is None or bare is None:
            return
        if self.reset:
            # Of the TCP transport itself: the one of TLS has no socket any more once it is closed.
            sock = bare.transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        else:
            writer.close()

    async def wait_closed(self) -> None:
        """Wait for the end, but not for long."""
        with contextlib.suppress(TimeoutError, OSError):
            async with asyncio.timeout(CLOSE_PATIENCE):
                await super().wait_closed()  # type: ignore[no-untyped-call]  # the same
