"""Requests in flight: one inbox, one table, no asyncio future and no timer per request.

The reply hook pops the entry and tells its owner: a trio task that is rescheduled, or a callback
(rules D2, D3). One task looks at the table now and then for deadlines, silence and the end of the
connection; a reconnect sends again, in order, what had been sent before (rule D5).

The life of a request::

    send ──> queued ──written──> in flight ──answer──────────────────> answered, acknowledged
               │                    │  ├─ 5 s of silence: again(), at the queue's end
               │                    │  └─ reconnect: again(), before all that is queued
               │                    │        └─ again() is None, reconnect only ──> failed(Lost)
               ├────── deadline ────┼────────────────────────────────> failed(NotStored)
               └─ connection over ──┘
    drop: at any time; nobody is told

A request is in the table from ``send`` until one of these ends. It is taken out *before* its owner
is told: an owner that is told twice would reschedule its task twice, which takes the run down
(notes B4). What is only queued when a connection is lost stays where it stands in the queue.
"""

import re
from collections.abc import Callable
from itertools import count
from typing import Protocol, final

import outcome
import trio

from trio_dagnats.errors import NotStored
from trio_dagnats.logs import Log
from trio_dagnats.transport.nats.frames import Frame, Incoming
from trio_dagnats.transport.nats.outbox import Outbox
from trio_dagnats.transport.rules import WHAT_WAS_STORED, callback_failed

log = Log("trio_dagnats.transport")

SWEEP = 0.1
"""Seconds between two looks at the deadlines."""
SILENCE = 5.0
"""Seconds without an answer after which a frame is sent again (nats.go's publish timeout)."""

MOST_REFUSALS = 1000
"""Refusals, and subjects of them, that are remembered."""
_REFUSAL = re.compile(
    r'permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE
)

Again = Callable[[], Frame]


class Request(Protocol):
    """A request that waits for its answer.

    Attributes:
        deadline: trio time.
        sends: how often it was sent.
        token: its number in the table.
    """

    deadline: float
    sends: int
    token: bytes

    @property
    def frame(self) -> Frame:
        """What was queued; another one once it was sent again."""
        ...

    @frame.setter
    def frame(self, frame: Frame) -> None: ...

    @property
    def sent_at(self) -> float:
        """When its first frame was written (trio time), 0 while that is queued."""
        ...

    def again(self) -> Frame | None:
        """Make what to send after a reconnect or silence; None to give up then."""
        ...

    def answered(self, message: Incoming) -> None:
        """Take the answer; must not wait or raise."""
        ...

    def acknowledged(self, found: re.Match[bytes]) -> None:
        """Take the acknowledgement of a stored message; must not wait or raise.

        Args:
            found: what ``parsing.acknowledgements`` has found.
        """
        ...

    def failed(self, error: "NotStored | Lost") -> None:
        """Take the news that there will be none; must not wait or raise."""
        ...


@final
class Lost(Exception):  # noqa: N818 - named for what happened; never leaves this room
    """The connection was lost under a request that must not be sent again by itself."""


@final
class _Asked:
    """A request for which a trio task waits.

    Made and awaited by ``Requests.ask`` in the same task. It keeps the task itself and no
    event, for exactly one of ``answered`` and ``failed`` is ever called, and once.
    """

    __slots__ = ("_remake", "answer", "deadline", "frame", "sends", "task", "token")

    answer: Incoming

    def __init__(self, frame: Frame, remake: Again | None, deadline: float) -> None:
        self.frame = frame
        self.deadline = deadline
        self.sends = 1
        self.token = b""
        self.task = trio.lowlevel.current_task()
        self._remake = remake

    @property
    def sent_at(self) -> float:
        return self.frame.sent_at

    def again(self) -> Frame | None:
        return self._remake() if self._remake is not None else None

    def answered(self, message: Incoming) -> None:
        self.answer = message
        trio.lowlevel.reschedule(self.task)

    def acknowledged(self, found: re.Match[bytes]) -> None:
        self.answered(Incoming(self.frame.reply, "", found["body"]))

    def failed(self, error: NotStored | Lost) -> None:
        trio.lowlevel.reschedule(self.task, outcome.Error(error))


@final
class Requests:
    """The table of requests in flight.

    Args:
        outbox: where frames go.
        inbox: the prefix of reply subjects, without the last token.

    Attributes:
        inbox: the same.
        contact: the newest trio time of which the server is known to have heard from us later:
            what arrives from now on was sent after it.
        over: whether no answer can come any more; the next look then ends what is asked.
    """

    def __init__(self, outbox: Outbox, inbox: str) -> None:
        self._outbox = outbox
        self.inbox = inbox
        self._prefix = f"{inbox}."
        self._cut = len(self._prefix)
        self._numbers = count(1)
        self._table: dict[bytes, Request] = {}
        self._filled = trio.lowlevel.ParkingLot()
        self._refused: set[str] = set()
        self.contact = 0.0
        self.over = False

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
        asked = _Asked(frame, again, deadline)
        self.send(asked, frame)

        def leave(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            self.drop(asked)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)
        return asked.answer, asked.sends

    def send(self, request: Request, frame: Frame) -> None:
        """Queue a request's first frame; its owner is told what became of it. Never waits.

        Raises:
            UsageError: as ``Outbox.put``; nothing is sent, and nobody is told.
        """
        number = next(self._numbers)
        request.token = token = b"%d" % number
        frame.reply = f"{self._prefix}{number}"
        if not frame.subject:
            frame.subject, frame.reply = frame.reply, ""
        self._outbox.put(frame)  # first: a frame that is refused leaves nothing behind
        if not self._table:
            self._filled.unpark_all()
        self._table[token] = request

    def drop(self, request: Request) -> None:
        """Forget a request: its owner hears nothing more, what is still queued is not sent."""
        self._table.pop(request.token, None)
        request.frame.not_after = 0.0

    def answered(self, message: Incoming) -> None:
        """Take an answer from the inbox; late ones find nobody."""
        request = self._find(message.subject[self._cut :].encode())
        if request is not None:
            request.answered(message)

    def acknowledged(self, found: re.Match[bytes]) -> None:
        """Take the acknowledgement of a stored message; late ones find nobody."""
        request = self._find(found["token"])
        if request is not None:
            request.acknowledged(found)

    def heard_refusal(self, text: str) -> bool:
        """Take what the server says of us, if it is a refusal: that is why there is no answer.

        Args:
            text: as the server has sent it, or in small letters, as nats-py has it.

        Returns:
            Whether it is one: a subject that this user may not use.
        """
        found = _REFUSAL.search(text)
        if found is None:
            return False
        if found[0] not in self._refused and len(self._refused) < MOST_REFUSALS:
            log.warning("the server refuses us: %s", found[0])
            self._refused.add(found[0])  # said once
            if found[1].lower() == "publish":
                self._refused.add(found[2].lower())
        return True

    def refusal(self, subject: str) -> str:
        """Return why nothing came back from a subject, as the end of a sentence; mostly empty."""
        if subject.lower() not in self._refused:
            return ""
        return f": the server does not let this user publish to {subject!r}"

    def _find(self, token: bytes) -> Request | None:
        request = self._table.pop(token, None)
        # The answer may be to an earlier send than the last one: then it proves too little.
        if request is not None and request.sends == 1 and request.sent_at > self.contact:
            self.contact = request.sent_at
        return request

    def reconnected(self) -> None:
        """Send again what had been sent on the old connection, before anything new."""
        self._refused.clear()
        self.contact = trio.current_time()  # nothing of the old connection arrives any more
        sent = [request for request in self._table.values() if request.frame.sent_at]
        frames = [(request, _again(request)) for request in sent]
        self._outbox.put_first(frame for _, frame in frames if frame is not None)
        for request, frame in frames:
            if frame is None:
                self._fail(request, Lost())

    async def sweep(self) -> None:
        """End requests whose deadline has passed and break silences, until cancelled."""
        while True:
            if not self._table:
                await self._filled.park()
            await trio.sleep(SWEEP)
            now = trio.current_time()
            for late in [r for r in self._table.values() if self.over or r.deadline <= now]:
                why = f"the server did not answer in time{self.refusal(late.frame.subject)}"
                self._fail(late, NotStored("the connection has ended" if self.over else why))
            for silent in [r for r in self._table.values() if _is_silent(r, now)]:
                frame = _again(silent)
                if frame is not None:
                    self._outbox.put(frame)

    def _fail(self, request: Request, error: NotStored | Lost) -> None:
        self.drop(request)
        try:
            request.failed(error)
        except Exception as defect:  # noqa: BLE001 - the border to who has asked; it is logged
            callback_failed(WHAT_WAS_STORED, defect)


def _again(request: Request) -> Frame | None:
    """Put a new frame in the place of a request's old one, which is not sent any more."""
    frame = request.again()
    if frame is not None:
        request.sends += 1
        frame.reply = request.frame.reply
        request.frame.not_after = 0.0
        request.frame = frame
    return frame


def _is_silent(request: Request, now: float) -> bool:
    sent_at = request.frame.sent_at
    return sent_at > 0 and now - sent_at > SILENCE
