"""How to connect: one frozen object; nothing secret in it is ever shown.

All that can be found out without a server is found out when the object is made, in the user's own
line and words: two ways to log in, half of one, a file that is not there or holds something else.
nats-py would find it at the first connect, and tell of it in the words of its insides. What is in
the files is read again at each connect, so a rotated key needs no new process.

Secrets stand in three places: fields without ``repr``, files, URLs. Each text that shows a URL goes
through :func:`shown`; a login in a URL is taken out of it before it is dialled.
"""

import ssl
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import final
from urllib.parse import unquote, urlsplit

from trio_dagnats.errors import UsageError
from trio_dagnats.transport.key_files import read_key
from trio_dagnats.wire.subjects import is_key

SCHEMES = ("nats", "tls")
"""No ``ws``: it needs aiohttp, and our own transport speaks plain TCP and TLS only."""
DEFAULT_PORT = 4222
"""NATS's own, for a URL without one."""
INBOX = "_INBOX"
"""How the subjects of answers begin, with every NATS client."""
JETSTREAM_API = "$JS.API"
"""How the subjects of the JetStream API begin, unless a domain or another account is between."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectOptions:
    """How to connect to a server.

    Attributes:
        name: the connection's name in the server's reports.
        user: user name, with ``password``. Without any way to log in, what stands in the URL is
            taken (``nats://user:password@host``, or a token; special characters as ``%XX``), for
            the servers that the cluster tells of as well.
        password: never shown.
        token: never shown.
        credentials: path of a ``.creds`` file, read again at every connect; needs the extra
            ``nkeys`` (``pip install 'trio-dagnats[nkeys]'``).
        nkey_seed: path of a file with an nkey seed; likewise.
        tls: the context to verify the server with; when given (or with a ``tls://`` URL), nothing
            is sent to a server that does not speak TLS.
        tls_handshake_first: begin TLS before the server has said anything, for one that has
            ``handshake_first`` in its configuration; without ``tls`` the usual authorities count.
        inbox_prefix: how the subjects of answers begin, for users that may not subscribe to all.
        jetstream_domain: the JetStream domain of the engine, if it is reached over a leaf node.
        jetstream_prefix: how the subjects of the JetStream API begin, if the account imports it
            under another name than ``$JS.API``; in place of a domain.
        connect_timeout: seconds until a first connect is given up. Every address that is known has
            an equal share of them (1 second at least), at a reconnect as well, so one that does
            not answer does not keep the others waiting; a lookup that hangs is abandoned.
        login_patience: seconds after a refused login until a connection that was lost is given up,
            if no login has succeeded since: a rotated secret may come late. Files are read again at
            each try. Refusals of the first connect are final at once.

    Raises:
        UsageError: options that contradict each other, or a file that is not there or holds no
            usable key.
    """

    name: str = "trio-dagnats"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    credentials: str | Path | None = None
    nkey_seed: str | Path | None = None
    tls: ssl.SSLContext | None = None
    tls_handshake_first: bool = False
    inbox_prefix: str = INBOX
    jetstream_domain: str | None = None
    jetstream_prefix: str | None = None
    connect_timeout: float = 10.0
    login_patience: float = 60.0

    @property
    def ways(self) -> list[str]:
        """The ways to log in that are given; one at the most."""
        ways = {
            "user": self.user,
            "token": self.token,
            "credentials": self.credentials,
            "nkey_seed": self.nkey_seed,
        }
        return [name for name, value in ways.items() if value is not None]

    def __post_init__(self) -> None:
        """Check what can be checked without a server."""
        if len(self.ways) > 1:
            raise UsageError(f"give one way to log in, not {' and '.join(self.ways)}")
        if (self.user is None) != (self.password is None):
            raise UsageError("give user and password together")
        self._check_subjects()
        if not (isfinite(self.connect_timeout) and self.connect_timeout > 0):
            raise UsageError(f"connect_timeout must be seconds > 0, not {self.connect_timeout!r}")
        if not (isfinite(self.login_patience) and self.login_patience >= 0):
            raise UsageError(f"login_patience must be seconds >= 0, not {self.login_patience!r}")
        for path in (self.credentials, self.nkey_seed):
            if path is not None:
                read_key(Path(path), jwt=path is self.credentials)

    def _check_subjects(self) -> None:
        if self.jetstream_domain is not None and self.jetstream_prefix is not None:
            raise UsageError("give jetstream_domain or jetstream_prefix, not both")
        for name in ("inbox_prefix", "jetstream_domain", "jetstream_prefix"):
            text = getattr(self, name)
            if text is not None and not is_key(text):
                raise UsageError(
                    f"{name} must be words joined by dots, without '*' and '>', not {text!r}"
                )

    @property
    def api(self) -> str:
        """How the subjects of the JetStream API begin."""
        if self.jetstream_domain is not None:
            return f"$JS.{self.jetstream_domain}.API"
        return self.jetstream_prefix or JETSTREAM_API


def check_url(url: str) -> str:
    """Return a server's URL that can be dialled; a bare ``host:port`` gets the scheme.

    Raises:
        UsageError: it cannot; the text shows the URL without its user and password.
    """
    full = url if "://" in url else f"nats://{url}"
    try:
        parts = urlsplit(full)
        host, port = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError:  # its text may hold a part of the password
        parts, host, port = urlsplit(""), None, 0
    usable = host and not {" ", ","} & set(host) and parts.path in {"", "/"} and not parts.query
    if parts.scheme not in SCHEMES or not usable or not 0 < port < 65536:
        raise UsageError(
            f"{shown(url)!r} is no server URL; write it as nats://host:4222 (schemes: "
            f"{', '.join(SCHEMES)}), several as a list, and special characters of a password as "
            "%XX, or give it by ConnectOptions"
        )
    return full


def take_login(urls: list[str], options: ConnectOptions) -> tuple[list[str], ConnectOptions]:
    """Take user and password, or a token, out of checked URLs: servers learnt later need it, too.

    A way to log in that the options give wins.

    Raises:
        UsageError: the URLs hold different ones.
    """
    parts = [urlsplit(url) for url in urls]
    bare = [part._replace(netloc=part.netloc.rpartition("@")[2]).geturl() for part in parts]
    logins = {part.netloc.rpartition("@")[0] for part in parts} - {""}
    if not logins or options.ways:
        return bare, options
    if len(logins) > 1:
        raise UsageError(
            f"{', '.join(bare)}: these URLs log in differently; give one user and password for all "
            "of them, by ConnectOptions or in each URL"
        )
    user, found, password = logins.pop().partition(":")
    if not found:
        return bare, replace(options, token=unquote(user))
    return bare, replace(options, user=unquote(user), password=unquote(password))


def shown(url: str) -> str:
    """Return a URL as it may be shown: without user and password, however it is mistyped."""
    scheme, found, rest = url.partition("://") if "://" in url else ("", "", url)
    return f"{scheme}{found}{rest.rpartition('@')[2]}"
