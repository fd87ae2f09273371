"""Finding a server by its name: each address gets a share of the time, and none of them all of it.

In trio, for there a lookup that hangs can be left alone, and a cancelled connect ends.
"""

import socket
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from typing import TypeAlias, final

import trio

LEAST = 1.0
"""Seconds that an address gets at least, however many there are: a slow network needs them."""
HEAD_START = 0.25
"""Seconds after which the next address of a name is tried beside those before it (RFC 8305)."""

Name: TypeAlias = tuple[str, int]
"""A host's name, or its address, and a port."""
_Address: TypeAlias = tuple[
    int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
]
"""What a lookup finds."""


@final
class Dialler:
    """Opens TCP connections to servers, one attempt after the other.

    Args:
        timeout: seconds in which every known address has its turn.

    Attributes:
        ends: trio time at which the newest attempt has to be through, with all that it says to the
            server; None before the first one.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        # When each address of a name was tried; 0 for never.
        self._tried: dict[Name, dict[_Address, float]] = {}
        # A lookup that hangs keeps its thread: one a name, and none of those of the program.
        self._lookups: dict[Name, trio.CapacityLimiter] = {}
        self.ends: float | None = None

    async def dial(self, name: Name, pool: Iterable[Name], opened: ExitStack) -> socket.socket:
        """Connect to one address of a server, those first that were not tried lately.

        Args:
            name: the server.
            pool: the servers that share the time, this one among them.
            opened: gets what closes the connection, for a caller that is cancelled meanwhile.

        Raises:
            OSError: no such name, or none of its addresses takes a connection in time.
        """
        names = list(pool)
        self.ends = trio.current_time() + self._share(names)
        with trio.move_on_at(self.ends) as scope:
            tried = await self._look_up(name)
            self.ends = scope.deadline = trio.current_time() + self._share(names)
            sock = await _first_to_answer(tried)
            opened.callback(sock.close)
            return sock
        raise TimeoutError

    def _share(self, names: list[Name]) -> float:
        addresses = sum(len(self._tried.get(name, "?")) for name in names)
        return max(LEAST, self._timeout / max(1, addresses))

    async def _look_up(self, name: Name) -> dict[_Address, float]:
        """Return the addresses of a server, and when each was tried."""
        ask = partial(socket.getaddrinfo, *name, type=socket.SOCK_STREAM)
        try:
            found = ask(flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            alone = self._lookups.setdefault(name, trio.CapacityLimiter(1))
            found = await trio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=alone)
        before = self._tried.get(name, {})
        self._tried[name] = {address: before.get(address, 0.0) for address in found}
        return self._tried[name]


async def _first_to_answer(tried: dict[_Address, float]) -> socket.socket:
    """Return a connection to the first address that takes one."""
    connected: list[trio.socket.SocketType] = []
    errors: list[OSError] = []

    async def connect(address: _Address, failed: trio.Event) -> None:
        *kind, _, place = address
        sock = trio.socket.socket(*kind)
        closing.callback(sock.close)
        try:
            await sock.connect(place)
        except OSError as error:
            errors.append(error)
            failed.set()
        else:
            tried[address] = trio.current_time()
            connected.append(sock)
            nursery.cancel_scope.cancel()

    with ExitStack() as closing:
        async with trio.open_nursery() as nursery:
            for address in sorted(tried, key=lambda address: tried[address]):
                failed = trio.Event()
                nursery.start_soon(connect, address, failed)
                with trio.move_on_after(HEAD_START):
                    await failed.wait()
        if not connected:
            raise errors[-1]
        return socket.socket(fileno=connected[0].detach())
