"""Bytes that no server sends, put between a client and a real server."""

import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import trio

TLS = Path(__file__).with_name("tls")
CERTIFICATE, KEY = TLS / "cert.pem", TLS / "key.pem"
"""A certificate for loopback, and its key (``tls/README.md``)."""


def trusting() -> ssl.SSLContext:
    """Make a context that trusts the tests' certificate."""
    return ssl.create_default_context(cafile=CERTIFICATE)


class Injector:
    """Passes a real server's bytes on, and odd ones of its own.

    Attributes:
        greetings: what the next connections get in place of a server, one each.
        edit: what is done to all that a client says whose connection begins from now on.
        url: where to connect; valid once :meth:`run` has started.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._client: trio.SocketStream | None = None
        self._passing = trio.Lock()
        self.greetings: list[bytes] = []
        self.edit: Callable[[bytes], bytes] = bytes
        self.url = ""

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take connections until cancelled."""
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.url = f"nats://127.0.0.1:{listener.socket.getsockname()[1]}"
        task_status.started()
        await trio.serve_listeners(self._serve, [listener])

    async def inject(self, odd: bytes) -> None:
        """Send bytes to the newest client, between two of the server's chunks."""
        assert self._client is not None
        async with self._passing:
            await self._client.send_all(odd)

    async def close(self) -> None:
        """Close the newest client's connection, once what was sent to it has gone."""
        assert self._client is not None
        async with self._passing:
            await self._client.aclose()

    async def _serve(self, client: trio.SocketStream) -> None:
        async with client:
            if self.greetings:
                await client.send_all(self.greetings.pop(0))
                await _drained(client)
                return
            self._client, edit = client, self.edit
            server = await trio.open_tcp_stream("127.0.0.1", self._server_port)
            async with server, trio.open_nursery() as nursery:
                nursery.start_soon(self._pass_down, server, client)
                with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    while chunk := await client.receive_some():
                        await server.send_all(edit(bytes(chunk)))
                nursery.cancel_scope.cancel()

    async def _pass_down(self, server: trio.SocketStream, client: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while chunk := await server.receive_some():
                async with self._passing:
                    await client.send_all(chunk)


async def _drained(client: trio.SocketStream) -> None:
    """Wait for the client's end of a connection."""
    with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        while await client.receive_some():
            pass
