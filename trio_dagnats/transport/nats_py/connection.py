"""Our own connection: dialled, watched, brought back after a loss, closed.

The trio-asyncio loop lives in a task of its own: entered and left in the caller's task, its scopes
misnest with the caller's (executed; design 3). That task is shielded and ends after the block's
body, so that a clean-up in there still finds a connection.

::

    caller: dial ── held ──┬── run (shielded) ─ open_loop ─ _dial ─ _hold ─────────────── _close
                           │                                  │       └ outbox, sweep       │
                           ├── ready.wait() <─────────────────┼─ an echo came back ─┘       │
                           ├── watch: raises when it has ended for good                     │
                           └── the block's body ──────────── leave() ends _hold ────────────┘

A loss and a return, told by nats-py:

1. ``_on_lost``: nothing is written any more; frames stay in the outbox, requests in their table.
2. nats-py tries again, for ever, about every 0.25 to 0.5 s: it has us dial (``SteadyClient``), and
   does the greeting and the login.
3. ``_on_back``: all our subscriptions in one write; then what was in flight is sent again, in its
   order; then pulls are asked for anew and listeners told (``OwnPath.back``, ``Link.reconnected``).

A login that is refused then, or a key file that holds none, is tried for ``login_patience``; then,
and when nats-py has closed, the connection is over (``Link.give_up``, ``Link.closed``): ``watch``
raises, and what is asked is told so at once. -ERR is a warning, and no end by itself.

A loss that nobody tells (a dead peer) is noticed by pings: one every 10 s, two may be missing. Then
the socket is reset, so that its unsent bytes die in the kernel; that bound, ``ABORT_AFTER``, is
what lets a worker send an outcome without a condition (design 8.6).

The end has two steps, each with a deadline: within ``FLUSH`` (1 s) what is queued is written, and
an echo proves that the server has all of it; within ``CLOSE`` (2 s) nats-py closes.
"""

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import random
from typing import final

import trio
import trio_asyncio
from nats.aio.client import Client

from trio_dagnats.errors import ConnectError, NotStored
from trio_dagnats.logs import Log
from trio_dagnats.transport.nats.broker import NatsBroker
from trio_dagnats.transport.nats.link import Link, keep_open
from trio_dagnats.transport.nats_py.borrowed import BorrowedPath
from trio_dagnats.transport.nats_py.own_path import OwnPath
from trio_dagnats.transport.nats_py.private import (
    HookedClient,
    SteadyClient,
    hooks_fit,
    protect_loop,
)
from trio_dagnats.transport.nats_py.refusals import (
    Complaint,
    Logins,
    NoLogin,
    PlainText,
    is_refused,
)
from trio_dagnats.transport.options import ConnectOptions, shown
from trio_dagnats.transport.patience import CLOSE, FLUSH
from trio_dagnats.transport.port import FOREVER

log = Log("trio_dagnats.transport")

PUBLIC_PATH = "TRIO_DAGNATS_PUBLIC_PATH"
"""The variable that, if it is not empty, keeps us to nats-py's public calls: slower, but a way out
should a release of it not fit the fast path."""
PING_INTERVAL = 10
"""Seconds; nats-py's own are 120, with which a dead peer is noticed after six minutes."""
MAX_PINGS = 2
"""Pings without an answer that may be open; with the next one the connection is given up."""
ABORT_AFTER = 35.0
"""Seconds until a dead connection is aborted: (pings + 1) intervals, and some for the loop."""
RECONNECT_WAIT = 0.25
"""Seconds between two attempts to dial, times 1 to 2 at random: all workers of a server lose it at
the same moment, and shall not come back at one."""
CHECK_PATIENCE = 2.0
"""Seconds for a message of ours to come back through the hooks, after the first connect."""
MAX_COMPLAINTS = 20
"""Different complaints of the server that are logged as warnings, for each connection."""


@asynccontextmanager
async def dial(urls: list[str], options: ConnectOptions) -> AsyncIterator[NatsBroker]:
    """Connect to one of the servers for the length of a block; see ``open_broker``.

    Which path it takes is decided here, once: our own bytes, or nats-py's public calls where its
    private names are not those that we know, or where the user says so.
    """
    fast = not os.environ.get(PUBLIC_PATH)
    if fast and not hooks_fit():
        log.warning("this nats-py is not one that the fast path knows; using its public calls")
        fast = False
    connection = _Connection(urls, options, fast=fast)
    async with keep_open(connection):
        yield connection.broker


@final
class _Connection:
    """One connection and its loop; ``fast`` for our hooks, else nats-py's public calls.

    Written to by its own task and by nats-py's callbacks, which run in asyncio's turns of the same
    thread. ``_refusal`` is the last error that nats-py has told: of several attempts to connect the
    last one says best what is wrong. ``_leaving`` keeps an end that we want out of the log.

    Args:
        urls: checked URLs, of one cluster.
        options: how to log in, and how long to try.
        fast: whether the hooks fit.

    Attributes:
        ready: set when the connection has proved to work; see ``link.Holder``.
        broker: the port on it; made before ``ready`` is set.
    """

    def __init__(self, urls: list[str], options: ConnectOptions, *, fast: bool) -> None:
        self._fast = fast
        self._client: Client = SteadyClient(options.connect_timeout)
        self._urls = urls
        self._options = options
        self._names = ", ".join(shown(url) for url in urls)
        self._scope = trio.CancelScope(shield=True)
        self._dialling = trio.CancelScope()
        self._refusal: Exception | None = None
        self._logins = Logins(self._names, options.login_patience)
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

        Dialling is not shielded: a caller that is cancelled while it connects waits no longer than
        the clean-up of that does (``_abandon``). From the first connect on only ``leave`` ends it.

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
        """Make the link with its path; what dies with a public client's connection we cannot say.

        Hence ``FOREVER`` there: no lease outlives a dead connection, and every outcome is stored
        with a condition.
        """
        if not self._fast:
            make_public = partial(self._make_public, loop)
            return Link(make_public, FOREVER, self._options.inbox_prefix, self._options.api)
        return Link(self._make_path, ABORT_AFTER, self._options.inbox_prefix, self._options.api)

    def _make_public(self, loop: trio_asyncio.TrioEventLoop, link: Link) -> BorrowedPath:
        self._public = BorrowedPath(self._client, loop, link)
        return self._public

    def _make_path(self, link: Link) -> OwnPath:
        self._client = client = HookedClient(link.subscriptions, self._options.connect_timeout)
        self._path = OwnPath(client, link)
        return self._path

    async def _hold(self, link: Link) -> None:
        """Move frames until cancelled; ``ready`` is set only after our own echo has come back."""
        async with trio.open_nursery() as nursery:
            if self._path is not None:
                self._path.begin()
            else:
                nursery.start_soon(self._public.watch, link)
            await link.open(nursery)
            await self._check(link)
            self.ready.set()

    async def _check(self, link: Link) -> None:
        """Make sure that the hooks work: a message of ours must come back through them.

        The names may all be there and do something else in another release; then every answer
        would be waited for in vain, and nothing would say why.
        """
        try:
            await link.echo(trio.current_time() + CHECK_PATIENCE)
        except NotStored as error:
            raise ConnectError(
                f"{self._names} is connected, but our own messages do not come back: this nats-py "
                f"does not fit, or the account may not use {self._options.inbox_prefix}.>: give an "
                "inbox_prefix (ConnectOptions) that it may"
            ) from error

    async def _dial(self, loop: trio_asyncio.TrioEventLoop) -> None:
        """Connect, within ``connect_timeout``.

        Bounded from outside, because nats-py with endless reconnects also tries a first connect for
        ever, even with a wrong password (notes A5). ``_on_error`` ends it early where trying again
        changes nothing.

        Raises:
            ConnectError: no usable server in time; the text says which of four reasons it was.
        """
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
        """Close what a given-up connect has left open, also when it was cancelled."""
        self._leaving = True
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE):
            await trio_asyncio.aio_as_trio(self._client.close, loop=loop)()
            if isinstance(self._client, HookedClient):
                await trio_asyncio.aio_as_trio(self._client.drop, loop=loop)()

    def _why_not(self) -> str:
        """Say why there is no connection: no TLS, no key, refused, silence, or the last error."""
        seconds = self._options.connect_timeout
        if isinstance(self._refusal, PlainText | NoLogin):
            return f"cannot connect to {self._names}: {self._refusal}"
        if self._refusal is not None and is_refused(self._refusal):
            return f"{self._names} refused the credentials: check user, token, credentials or nkey"
        if self._refusal is None or isinstance(self._refusal, TimeoutError):
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
        """Write what is still queued; the tasks that do it have ended by now.

        So they are started once more, for the length of an echo: it is queued behind all the rest,
        and comes back when the server has read everything before it. A flush of nats-py's would
        wait for a PONG, which a reconnect throws away.
        """
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
        """Remember what nats-py complains of; most of it mends itself, so it is no warning.

        What the server itself complains of is one: somebody has to mend it.
        """
        self._refusal = error
        if isinstance(error, Complaint):
            self._complained(str(error))
        elif isinstance(error, PlainText | NoLogin) or is_refused(error):
            self._dialling.cancel()  # trying again changes nothing
            if self.ready.is_set() and (why := self._logins.refused(error)):
                self._link.give_up(why)
        elif isinstance(error, OSError):
            self._logins.away()
        log.debug("nats: %r", error)

    def _complained(self, text: str) -> None:
        """Log what the server complains about, each once: some it says for every message.

        Refused subjects are for ``Requests``, which logs them and names them to whoever waits.
        """
        if self._link.requests.heard_refusal(text):
            return
        if text not in self._complaints and len(self._complaints) < MAX_COMPLAINTS:
            self._complaints.add(text)
            log.warning("%s says: %s", self._names, text)

    async def _on_lost(self) -> None:
        """Stop writing; told of one loss several times, our own path logs it once."""
        known = self._path is None or self._path.writable
        if self._path is not None:
            self._path.lost()
        if known and not self._leaving:
            log.warning("connection to %s lost; reconnecting", self._names)

    async def _on_back(self) -> None:
        """Begin again; on the public path ``BorrowedPath.watch`` notices it by itself."""
        if self._path is not None:
            self._path.back()
        self._logins.granted()
        log.warning("connection to %s is back", self._names)

    async def _on_closed(self) -> None:
        """Take the end of it: nats-py does not try again after this, so ``watch`` raises."""
        if self._path is not None:
            self._path.lost()
        self._link.closed(str(self._refusal or "closed"))

    def _connect_arguments(self) -> dict[str, object]:
        """Return what nats-py is told; what is not set is left out, so its own default holds.

        ``pending_size`` -1 lets nothing wait in nats-py's buffer, which would send it later whether
        its time is over or not: the outbox is the only queue.
        """
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
            "tls_handshake_first": options.tls_handshake_first,
            "user": options.user,
            "password": options.password,
            "token": options.token,
            "user_credentials": _path(options.credentials),
            "nkeys_seed": _path(options.nkey_seed),
        }
        return {name: value for name, value in arguments.items() if value is not None}


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
