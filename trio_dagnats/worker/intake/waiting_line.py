"""A line in which tasks wait for a number that somebody gives them. Plain trio parking, no I/O.

Not a ``trio.ParkingLot``: who serves has to see for whom each task waits, to pass some over, and to
move one to another line, so that the waiter is an object that can be found.
"""

from collections import deque
from typing import Generic, TypeVar, final

import outcome
import trio

T = TypeVar("T")


@final
class WaitQueue(deque["Waiter[T]"], Generic[T]):
    """Those who wait, the next one first."""

    def enter(self, place: "Waiter[T]", *, first: bool = False) -> None:
        """Take somebody in, at its end or its beginning."""
        place.line = self
        if first:
            self.appendleft(place)
        else:
            self.append(place)

    async def wait(self, whose: T, *, first: bool = False) -> int:
        """Wait in the line until served; return the number.

        Cancellation: the place is left.
        """
        place = Waiter(whose)
        self.enter(place, first=first)
        number: int = await trio.lowlevel.wait_task_rescheduled(place.give_up)
        return number


@final
class Waiter(Generic[T]):
    """The place of the task that makes it, in one line at a time.

    Attributes:
        whose: for whom the task waits.
        line: where it is.
    """

    __slots__ = ("_task", "line", "whose")

    line: WaitQueue[T]

    def __init__(self, whose: T) -> None:
        self.whose = whose
        self._task = trio.lowlevel.current_task()

    def move(self, line: WaitQueue[T], *, first: bool = False) -> None:
        """Go over to another line."""
        self.line.remove(self)
        line.enter(self, first=first)

    def serve(self, number: int) -> None:
        """Let its task go on with a number."""
        self.line.remove(self)
        trio.lowlevel.reschedule(self._task, outcome.Value(number))

    def give_up(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        """Leave the line: its task is cancelled."""
        self.line.remove(self)
        return trio.lowlevel.Abort.SUCCEEDED
