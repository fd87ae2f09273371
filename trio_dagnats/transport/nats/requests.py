"""Requests in flight: one inbox, one table, no asyncio future and no timer per request.

The reply hook pops the entry, then reschedules the waiting trio task (rules D2, D3). One task
looks at the table now and then for deadlines and silence; a reconnect sends again, in order, what
had been sent before (rule D5).
"""

from collections.abc import Callable, Iterator
from itertools import count
from secrets import token_hex
from typing import final

import outcome
import trio

from trio_dagnats.errors import NotStored
from trio_dagnats.transport.nats.frames import Frame, Incoming
from trio_dagnats.transport.nats.outbox import Outbox

SWEEP = 0.1
"""Seconds between two looks at the deadlines."""
SILENCE = 5.0
"""Seconds without an answer after which a frame is sent again (nats.go's publish timeout)."""

Again = Callable[[], Frame]


@final
class Pending:
    """A request that waits for its answer.

    Args:
        task: who waits.
        frame: what was queued.
        again: makes what to send after a reconnect or silence; None to give up then.
        deadline: trio time.
    """

    __slots__ = ("again", "deadline", "frame", "sends", "task")

    def __init__(
        self, task: trio.lowlevel.Task, frame: Frame, again: Again | None, deadline: float
    ) -> None:
        self.task = task
        self.frame = frame
        self.again = again
        self.deadline = deadline
        self.sends = 1


@final
class Lost(Exception):  # noqa: N818 - named for what happened; never leaves this room
    """The connection was lost under a request that must not be sent again by itself."""


@final
class Requests:
    """The table of requests in flight.

    Args:
        outbox: where frames go.
        inbox: the prefix of reply subjects, without the last token.
    """

    def __init__(self, outbox: Outbox, inbox: str) -> None:
        self._outbox = outbox
        self._prefix = f"{inbox}."
        self._cut = len(self._prefix)
        self._numbers = count(1)
        self._table: dict[str, Pending] = {}
        self._filled = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._table)

    @property
    def subject(self) -> str:
        """What to subscribe to."""
        return f"{self._prefix}*"

    async def ask(
        self, frame: Frame, *, deadline: float, again: Again | None = None
    ) -> tuple[Incoming, int]:
        """Send a frame and wait for its answer; also return how often it was sent.

        Args:
            frame: the frame; its reply subject is set here. Without a subject it goes to our own
                inbox: an echo.
            deadline: trio time.
            again: makes what to send after a reconnect or silence; None to give up then.

        Raises:
            NotStored: no answer in time.
            Lost: the connection was lost, and there is nothing to send again.
        """
        token = str(next(self._numbers))
        frame.reply = self._prefix + token
        if not frame.subject:
            frame.subject, frame.reply = frame.reply, ""
        pending = Pending(trio.lowlevel.current_task(), frame, again, deadline)
        if not self._table:
            self._filled.unpark_all()
        self._table[token] = pending
        self._outbox.put(frame)

        def leave(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            self._table.pop(token, None)
            pending.frame.not_after = 0.0  # if it is still queued it is not sent any more
            return trio.lowlevel.Abort.SUCCEEDED

        answer: Incoming = await trio.lowlevel.wait_task_rescheduled(leave)
        return answer, pending.sends

    def answered(self, message: Incoming) -> None:
        """Take an answer from the inbox; late ones find nobody."""
        pending = self._table.pop(message.subject[self._cut :], None)
        if pending is not None:
            trio.lowlevel.reschedule(pending.task, outcome.Value(message))

    def reconnected(self) -> None:
        """Send again what had been sent on the old connection, before anything new."""
        sent = [(token, p) for token, p in self._table.items() if p.frame.sent_at]
        self._outbox.put_first(self._again(sent))

    async def sweep(self) -> None:
        """End requests whose deadline has passed and break silences, until cancelled."""
        while True:
            if not self._table:
                await self._filled.park()
            await trio.sleep(SWEEP)
            now = trio.current_time()
            late = [token for token, p in self._table.items() if p.deadline <= now]
            for token in late:
                self._fail(token, NotStored("the server did not answer in time"))
            silent = [
                (token, p)
                for token, p in self._table.items()
                if p.again is not None and p.frame.sent_at and now - p.frame.sent_at > SILENCE
            ]
            for frame in self._again(silent):
                self._outbox.put(frame)

    def _again(self, pendings: list[tuple[str, Pending]]) -> Iterator[Frame]:
        for token, pending in pendings:
            if pending.again is None:
                self._fail(token, Lost())
                continue
            pending.sends += 1
            reply = pending.frame.reply
            pending.frame.not_after = 0.0
            pending.frame = pending.again()
            pending.frame.reply = reply
            yield pending.frame

    def _fail(self, token: str, error: Exception) -> None:
        pending = self._table.pop(token)
        pending.frame.not_after = 0.0
        trio.lowlevel.reschedule(pending.task, outcome.Error(error))


def new_inbox(prefix: str = "_INBOX") -> str:
    """Return an inbox that nobody else has."""
    return f"{prefix}.{token_hex(11)}"
