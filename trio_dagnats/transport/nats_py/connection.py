"""Our own connection: dialled, watched, brought back after a loss, closed.

The trio-asyncio loop lives in a task of its own: entered and left in the caller's task, its scopes
misnest with the caller's (executed; design 3). That task is shielded and ends after the block's
body, so that a clean-up in there still finds a connection.
"""

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import random
from typing import final

import nats.errors
import trio
import trio_asyncio
from nats.aio.client import Client

from trio_dagnats.errors import ConnectError, NotStored
from trio_dagnats.logs import Log
from trio_dagnats.transport.nats.broker import NatsBroker
from trio_dagnats.transport.nats.link import Link, held
from trio_dagnats.transport.nats_py.borrowed import BorrowedPath
from trio_dagnats.transport.nats_py.own_path import OwnPath
from trio_dagnats.transport.nats_py.private import (
    Complaint,
    HookedClient,
    NoLogin,
    PlainText,
    SteadyClient,
    hooks_fit,
    protect_loop,
)
from trio_dagnats.transport.options import ConnectOptions, shown
from trio_dagnats.transport.patience import CLOSE, FLUSH
from trio_dagnats.transport.port import FOREVER

log = Log("trio_dagnats.transport")

PUBLIC_PATH = "TRIO_DAGNATS_PUBLIC_PATH"
"""The variable that, if it is not empty, keeps us to nats-py's public calls: slower, but a way out
should a release of it not fit the fast path."""
PING_INTERVAL = 10
MAX_PINGS = 2
ABORT_AFTER = 35.0
"""Seconds until a dead connection is aborted: (pings + 1) intervals, and some for the loop."""
RECONNECT_WAIT = 0.25
CHECK_PATIENCE = 2.0
MAX_COMPLAINTS = 20
"""Different complaints of the server that are logged as warnings, for each connection."""


@asynccontextmanager
async def dial(urls: list[str], options: ConnectOptions) -> AsyncIterator[NatsBroker]:
    """Connect to one of the servers for the length of a block; see ``open_broker``."""
    fast = not os.environ.get(PUBLIC_PATH)
    if fast and not hooks_fit():
        log.warning("this nats-py is not one that the fast path knows; using its public calls")
        fast = False
    connection = _Connection(urls, options, fast=fast)
    async with held(connection):
        yield connection.broker


@final
class _Connection:
    """One connection and its loop; ``fast`` for our hooks, else nats-py's public calls."""

    def __init__(self, urls: list[str], options: ConnectOptions, *, fast: bool) -> None:
        self._fast = fast
        self._client: Client = SteadyClient()
        self._urls = urls
        self._options = options
        self._names = ", ".join(shown(url) for url in urls)
        self._scope = trio.CancelScope(shield=True)
        self._dialling = trio.CancelScope()
        self._refusal: Exception | None = None
        self._refused_at: float | None = None
        self._away_at = 0.0
        self._complaints: set[str] = set()
        self.ready = trio.Event()
        self._leaving = False
        self._path: OwnPath | None = None

    def leave(self) -> None:
        """End the connection's task; called when the block's body has ended."""
        self._scope.cancel()

    async def watch(self) -> None:
        """See ``link.Holder``."""
        await self._link.over.wait()
        raise ConnectError(f"the connection to {self._names} ended for good: {self._link.why_over}")

    async def run(self) -> None:
        """Hold the connection until :meth:`leave`.

        Raises:
            ConnectError: no usable server in time.
        """
        protect_loop()
        async with trio_asyncio.open_loop() as loop:
            loop.set_exception_handler(_log_loop_error)
            self._link = link = self._make_link(loop)
            await self._dial(loop)
            self.broker = NatsBroker(link)
            with self._scope:
                try:
                    await self._hold(link)
                finally:
                    await self._close(loop, link)

    def _make_link(self, loop: trio_asyncio.TrioEventLoop) -> Link:
        if not self._fast:
            return Link(partial(self._make_public, loop), FOREVER)
        return Link(self._make_path, ABORT_AFTER)

    def _make_public(self, loop: trio_asyncio.TrioEventLoop, link: Link) -> BorrowedPath:
        self._public = BorrowedPath(self._client, loop, link)
        return self._public

    def _make_path(self, link: Link) -> OwnPath:
        self._client = client = HookedClient(link.routes)
        self._path = OwnPath(client, link)
        return self._path

    async def _hold(self, link: Link) -> None:
        async with trio.open_nursery() as nursery:
            if self._path is not None:
                self._path.begin()
            else:
                nursery.start_soon(self._public.watch, link)
            await link.open(nursery)
            await self._check(link)
            self.ready.set()

    async def _check(self, link: Link) -> None:
        """Make sure that the hooks work: a message of ours must come back through them."""
        try:
            await link.echo(trio.current_time() + CHECK_PATIENCE)
        except NotStored as error:
            raise ConnectError(
                f"{self._names} is connected, but our own messages do not come back: this nats-py "
                "does not fit, or the account may not publish to its _INBOX"
            ) from error

    async def _dial(self, loop: trio_asyncio.TrioEventLoop) -> None:
        connect = trio_asyncio.aio_as_trio(self._client.connect, loop=loop)
        self._dialling.deadline = trio.current_time() + self._options.connect_timeout
        connected = False
        try:
            with self._dialling:
                await connect(**self._connect_arguments())
                connected = True
        finally:
            if not connected:
                await self._abandon(loop)
        if not connected:
            raise ConnectError(self._why_not())
        log.info("connected to %s", self._names)

    async def _abandon(self, loop: trio_asyncio.TrioEventLoop) -> None:
        self._leaving = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE):
            await trio_asyncio.aio_as_trio(self._client.close, loop=loop)()
            if isinstance(self._client, HookedClient):
                await trio_asyncio.aio_as_trio(self._client.drop, loop=loop)()

    def _why_not(self) -> str:
        seconds = self._options.connect_timeout
        if isinstance(self._refusal, PlainText | NoLogin):
            return f"cannot connect to {self._names}: {self._refusal}"
        if self._refusal is not None and _is_refused(self._refusal):
            return f"{self._names} refused the credentials: check user, token, credentials or nkey"
        if self._refusal is None:
            return f"no answer from {self._names} within {seconds:g} s: is a NATS server there?"
        reason = str(self._refusal) or type(self._refusal).__name__
        return f"cannot connect to {self._names} within {seconds:g} s: {reason}"

    async def _close(self, loop: trio_asyncio.TrioEventLoop, link: Link) -> None:
        """Send what is queued, then close; every step has its deadline."""
        self._leaving = True
        with trio.CancelScope(shield=True) as shield:
            shield.deadline = trio.current_time() + FLUSH
            if link.path.writable:
                await self._flush(link)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE):
            if isinstance(self._client, HookedClient):
                self._client.close_gently()
            await trio_asyncio.aio_as_trio(self._client.close, loop=loop)()

    @staticmethod
    async def _flush(link: Link) -> None:
        """Write what is still queued; the tasks that do it have ended by now."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link.outbox.run)
            nursery.start_soon(link.requests.sweep)
            try:
                await link.echo(trio.current_time() + FLUSH)
            except NotStored:
                log.warning("not all was sent before the connection closed")
            nursery.cancel_scope.cancel()

    # What nats-py calls. Coroutines that only set state and wake tasks: anything raised in here
    # would end nats-py's own tasks for good (notes A5, rule D10).

    async def _on_error(self, error: Exception) -> None:
        self._refusal = error
        if isinstance(error, Complaint):
            self._complained(str(error))
        elif isinstance(error, PlainText | NoLogin) or _is_refused(error):
            self._dialling.cancel()  # trying again changes nothing
            if self.ready.is_set():
                self._refused(error)
        elif isinstance(error, OSError):
            self._away_at = trio.current_time()
        log.debug("nats: %r", error)

    def _complained(self, text: str) -> None:
        """Log what the server complains about, each once: some it says for every message."""
        if text not in self._complaints and len(self._complaints) < MAX_COMPLAINTS:
            self._complaints.add(text)
            log.warning("%s says: %s", self._names, text)

    def _refused(self, error: Exception) -> None:
        """Take a refused login: it may be granted a little later, but it is not tried for ever.

        As long as some server is not there at all, not every one has refused.
        """
        patience, now = self._options.login_patience, trio.current_time()
        if self._refused_at is None:
            self._refused_at = now
            text = "%s: the login is refused (%s); trying for %g s, with what the file holds then"
            log.warning(text, self._names, error, patience)
        if now - max(self._refused_at, self._away_at) >= patience:
            self._link.give_up(f"no login for {patience:g} s (login_patience): {error}")

    async def _on_lost(self) -> None:
        known = self._path is None or self._path.writable
        if self._path is not None:
            self._path.lost()
        if known and not self._leaving:
            log.warning("connection to %s lost; reconnecting", self._names)

    async def _on_back(self) -> None:
        if self._path is not None:
            self._path.back()
        self._refused_at = None
        log.warning("connection to %s is back", self._names)

    async def _on_closed(self) -> None:
        if self._path is not None:
            self._path.lost()
        self._link.closed(str(self._refusal or "closed"))

    def _connect_arguments(self) -> dict[str, object]:
        options = self._options
        arguments: dict[str, object] = {
            "servers": self._urls,
            "name": options.name,
            "allow_reconnect": True,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": RECONNECT_WAIT * (1 + random()),  # noqa: S311 - jitter
            "connect_timeout": max(1, round(options.connect_timeout)),
            "ping_interval": PING_INTERVAL,
            "max_outstanding_pings": MAX_PINGS,
            "pending_size": -1,
            "error_cb": self._on_error,
            "disconnected_cb": self._on_lost,
            "reconnected_cb": self._on_back,
            "closed_cb": self._on_closed,
            "tls": options.tls,
            "user": options.user,
            "password": options.password,
            "token": options.token,
            "user_credentials": _path(options.credentials),
            "nkeys_seed": _path(options.nkey_seed),
        }
        return {name: value for name, value in arguments.items() if value is not None}


_REFUSALS = ("authorization violation", "authentication expired", "authentication revoked")


def _is_refused(error: Exception) -> bool:
    """Say whether the server has refused the credentials; nats-py knows one wording of two."""
    text = str(error).lower()
    known = isinstance(error, nats.errors.AuthorizationError)
    return known or any(refusal in text for refusal in _REFUSALS)


def _path(path: str | Path | None) -> str | None:
    return None if path is None else str(path)


def _log_loop_error(_loop: object, context: dict[str, object]) -> None:
    """Log what asyncio reports; its default would end the loop (notes B2, rule D11)."""
    error = context.get("exception")
    if isinstance(error, OSError | ssl.SSLError):
        log.debug("asyncio: %s", error)
        return
    log.error(
        "asyncio: %s",
        context.get("message"),
        exc_info=error if isinstance(error, BaseException) else None,
    )
