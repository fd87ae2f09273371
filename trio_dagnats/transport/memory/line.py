"""The line between a connection and the in-memory server: it can be cut, and come back.

::

    up ──cut──> cut ──mend──> up        sent meanwhile: waits here, in its order, or is dropped
    up ──hold─> held ─release─> up      sent meanwhile: is on its way, and arrives whatever happens

The difference is what a lost connection leaves open: bytes that wait in this process can still be
taken back when their time is over, bytes that the kernel has cannot.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol, final

import trio

from trio_dagnats.errors import NotStored
from trio_dagnats.transport.memory.clockwork import Clockwork
from trio_dagnats.transport.port import FOREVER, OnMessage


class Puller(Protocol):
    """An intake, as far as its line is concerned."""

    def reconnected(self) -> None:
        """Ask again: the open pulls died with the connection."""
        ...

    def forget(self) -> None:
        """Let the server drop the open pulls."""
        ...


@final
class Line:
    """One connection's line; frames keep their order on it.

    Attributes:
        connected: whether the line is up.
        answers_to_lose: how many answers to deliveries get lost on their way, from now on.
        listeners: who is told that the line was cut and is back.
        intakes: who has open pulls.
    """

    def __init__(self, clockwork: Clockwork) -> None:
        self._clockwork = clockwork
        self._queued: list[tuple[Callable[[], None], float]] = []
        self._held: list[Callable[[], None]] | None = None
        self._back = trio.lowlevel.ParkingLot()
        self.answers_to_lose = 0
        self.listeners: list[OnMessage] = []
        self.intakes: list[Puller] = []
        self.connected = True

    def cut(self) -> None:
        """Lose the connection: what is sent waits, what is delivered is lost."""
        self.connected = False

    def crash(self) -> None:
        """Be cut, and let the server drop the pulls."""
        self.cut()
        for intake in self.intakes:
            intake.forget()

    def mend(self) -> None:
        """Send what is queued, then let pulls and listeners start over."""
        self.connected = True
        queued, self._queued = self._queued, []
        self._back.unpark_all()
        for call, not_after in queued:
            self.send(call, not_after)
        for intake in self.intakes:
            intake.reconnected()
        for listener in self.listeners:
            self._clockwork.post(partial(listener, None))

    @property
    def holding(self) -> bool:
        """Whether what is sent stays on its way for now."""
        return self._held is not None

    def hold(self) -> None:
        """Keep what is sent on its way, as a network does that is stuck: it is not lost."""
        self._held = []

    def release(self) -> None:
        """Let everything arrive that was held, however late it is."""
        held, self._held = self._held or [], None
        for call in held:
            self._clockwork.post(call)
        self._back.unpark_all()

    def holds_back(self, call: Callable[[], None], not_after: float) -> bool:
        """Send a frame that arrives later, whatever becomes of its sender; False: nothing held."""
        if self.connected and self.holding:
            self.send(call, not_after)
            return True
        return False

    def send(self, call: Callable[[], None], not_after: float = FOREVER) -> None:
        """Send a frame: queued while the line is cut, dropped when its time is over."""
        if not self.connected:
            self._queued.append((call, not_after))
        elif trio.current_time() >= not_after:
            return
        elif self._held is not None:
            self._held.append(call)
        else:
            self._clockwork.post(call)

    async def turn(self, deadline: float) -> None:
        """Take the time of a request to the server.

        Raises:
            NotStored: the line was not mended in time.
        """
        await trio.lowlevel.checkpoint()
        with trio.move_on_at(deadline):
            while self.holding or not self.connected:
                await self._back.park()
        if self.holding or not self.connected or trio.current_time() >= deadline:
            raise NotStored("the server did not answer in time")

    async def wait(self, seconds: float, deadline: float) -> None:
        """Wait for the line to be mended, for so long at the most."""
        with trio.move_on_at(min(deadline, trio.current_time() + seconds)):
            await self._back.park()
