"""How to connect: one frozen object; nothing secret in it is ever shown."""

import ssl
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import final
from urllib.parse import urlsplit

from trio_dagnats.errors import UsageError
from trio_dagnats.transport.key_files import read_key

SCHEMES = ("nats", "tls")
"""No ``ws``: it needs aiohttp, and our own transport speaks plain TCP and TLS only."""
DEFAULT_PORT = 4222


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectOptions:
    """How to connect to a server.

    Attributes:
        name: the connection's name in the server's reports.
        user: user name, with ``password``.
        password: never shown.
        token: never shown.
        credentials: path of a ``.creds`` file, read again at every connect; needs the extra
            ``nkeys`` (``pip install 'trio-dagnats[nkeys]'``).
        nkey_seed: path of a file with an nkey seed; likewise.
        tls: the context to verify the server with; when given (or with a ``tls://`` URL), nothing
            is sent to a server that does not speak TLS.
        connect_timeout: seconds until a first connect is given up.
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
    connect_timeout: float = 10.0
    login_patience: float = 60.0

    def __post_init__(self) -> None:
        """Check what can be checked without a server."""
        ways = {
            "user": self.user,
            "token": self.token,
            "credentials": self.credentials,
            "nkey_seed": self.nkey_seed,
        }
        given = [name for name, value in ways.items() if value is not None]
        if len(given) > 1:
            raise UsageError(f"give one way to log in, not {' and '.join(given)}")
        if (self.user is None) != (self.password is None):
            raise UsageError("give user and password together")
        if not (isfinite(self.connect_timeout) and self.connect_timeout > 0):
            raise UsageError(f"connect_timeout must be seconds > 0, not {self.connect_timeout!r}")
        if not (isfinite(self.login_patience) and self.login_patience >= 0):
            raise UsageError(f"login_patience must be seconds >= 0, not {self.login_patience!r}")
        for path in (self.credentials, self.nkey_seed):
            if path is not None:
                read_key(Path(path), jwt=path is self.credentials)


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


def shown(url: str) -> str:
    """Return a URL as it may be shown: without user and password, however it is mistyped."""
    scheme, found, rest = url.partition("://") if "://" in url else ("", "", url)
    return f"{scheme}{found}{rest.rpartition('@')[2]}"
