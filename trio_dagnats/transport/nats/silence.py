"""Pulls of which the server says nothing, on a connection that lives.

A server that has lost a subscription, or a cluster without a leader for a consumer, answers pings
and no pull. Such a worker is alive and serves nothing, and nobody is told; so it is said, then the
connection is made anew, and if that has not helped, given up.
"""

from collections.abc import Callable
from typing import Protocol, final

from trio_dagnats.logs import Log

log = Log("trio_dagnats.transport")

LONG = 90.0
"""Seconds of pulls without a word: three of a worker's pulls, and longer than an election takes.
A server that has stopped is noticed by its missing PONGs before, and is no silence."""


class Silent(Protocol):
    """What pulls.

    Attributes:
        name: the consumer.
    """

    name: str

    @property
    def answered(self) -> bool:
        """Whether the server has said something since the last pull was asked for."""
        ...


@final
class Silence:
    """The silences of all pulls on one connection.

    Args:
        renew: makes the connection anew.
        give_up: ends the use of the connection, for a reason.
    """

    def __init__(self, renew: Callable[[], None], give_up: Callable[[str], None]) -> None:
        self._renew = renew
        self._give_up = give_up
        self._seconds: dict[Silent, float] = {}
        self._made_anew = False

    def began(self, who: Silent) -> None:
        """Watch one more."""
        self._seconds[who] = 0.0

    def left(self, who: Silent) -> None:
        """Watch one less."""
        self._seconds.pop(who, None)

    def broken(self, who: Silent) -> None:
        """Take the news that the server has said something to a pull."""
        self._seconds[who] = 0.0
        self._made_anew = False

    def went_on(self, who: Silent, seconds: float) -> None:
        """Take the news that a pull has ended without a word, though the server answered others.

        Nothing but a warning follows as long as somebody else's pulls are answered, or somebody
        does not pull because all his slots are taken.
        """
        before = self._seconds[who]
        self._seconds[who] = now = before + seconds
        if before < LONG <= now:
            text = "consumer %s: the server has said nothing to its pulls for %.0f s"
            log.warning(text, who.name, now)
        if any(seconds < LONG or other.answered for other, seconds in self._seconds.items()):
            return
        if self._made_anew:
            self._give_up(
                f"the server answers, but said nothing to any pull for {now:.0f} s, nor after the "
                "connection was made anew: look at its JetStream (`nats server report jetstream`) "
                "and at this user's permissions"
            )
            return
        log.warning("no pull is answered: the connection is made anew")
        self._made_anew = True
        self._seconds = dict.fromkeys(self._seconds, 0.0)
        self._renew()
