"""Listening in order to look again: what wakes a task that reads something stored.

A message of a subscription says only that there may be something new; what is stored is the truth.
So whoever follows it listens, looks, and looks again after each message, at which one that came
during the look counts as well::

    news = News()
    async with broker.listen(subject, news.hear):
        while True:
            news.forget()
            ...  # look, and leave if it is there
            await news.wait(POLL)
"""

from collections.abc import Callable
from typing import final

import trio

from trio_dagnats.transport.port import Message


@final
class News:
    """Whether something was heard since the last :meth:`forget`.

    Args:
        wanted: says whether a message counts; all do by default. A gap (``None``) always does.
    """

    __slots__ = ("_heard", "_wanted")

    def __init__(self, wanted: Callable[[Message], bool] | None = None) -> None:
        self._wanted = wanted
        self._heard = trio.Event()

    @property
    def heard(self) -> bool:
        """Whether there is news."""
        return self._heard.is_set()

    def hear(self, message: Message | None) -> None:
        """Take a message of the subscription (``port.OnMessage``)."""
        if message is None or self._wanted is None or self._wanted(message):
            self._heard.set()

    def forget(self) -> None:
        """Begin a look: what is heard from here on is news."""
        self._heard = trio.Event()

    async def wait(self, seconds: float) -> bool:
        """Wait for news, at most so many seconds; say whether there is any."""
        with trio.move_on_after(seconds):
            await self._heard.wait()
        return self.heard
