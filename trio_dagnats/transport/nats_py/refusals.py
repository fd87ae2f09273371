"""What a server, or we, can have against a connection, and how long refused logins are tried."""

from typing import final

import nats.errors
import trio

from trio_dagnats.logs import Log

log = Log("trio_dagnats.transport")

_REFUSALS = ("authorization violation", "authentication expired", "authentication revoked")


class Complaint(nats.errors.Error):
    """What the server has said in a ``-ERR``."""


class NoLogin(nats.errors.Error):
    """There is nothing to log in with now: the file is gone, half written, or holds no key."""

    def __str__(self) -> str:
        return str(self.__cause__)


class PlainText(nats.errors.Error):
    """TLS was asked for, and this server has none."""

    def __str__(self) -> str:
        return "the server does not offer TLS; nothing was sent to it"


class OddBytes(nats.errors.Error):
    """The server has greeted us with something that nats-py cannot read."""

    def __str__(self) -> str:
        return f"the server does not speak the NATS protocol: {self.__cause__!r}"


def is_refused(error: Exception) -> bool:
    """Say whether the server has refused the credentials; nats-py knows one wording of them."""
    text = str(error).lower()
    known = isinstance(error, nats.errors.AuthorizationError)
    return known or any(refusal in text for refusal in _REFUSALS)


@final
class Logins:
    """How long logins have been refused, after a connection was lost.

    Args:
        names: the servers, as they may be shown.
        patience: seconds, see ``ConnectOptions.login_patience``.
    """

    def __init__(self, names: str, patience: float) -> None:
        self._names = names
        self._patience = patience
        self._refused_at: float | None = None
        self._away_at = 0.0

    def granted(self) -> None:
        """Take the news of a login."""
        self._refused_at = None

    def away(self) -> None:
        """Take the news that some server is not there at all: then not every one has refused."""
        self._away_at = trio.current_time()

    def refused(self, error: Exception) -> str:
        """Take a refused login: it may be granted a little later, but it is not tried for ever.

        Returns:
            Why there is no use in another try; empty as long as there may be one.
        """
        now = trio.current_time()
        if self._refused_at is None:
            self._refused_at = now
            text = "%s: the login is refused (%s); trying for %g s, with what the file holds then"
            log.warning(text, self._names, error, self._patience)
        if now - max(self._refused_at, self._away_at) < self._patience:
            return ""
        return f"no login for {self._patience:g} s (login_patience): {error}"
