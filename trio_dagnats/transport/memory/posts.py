"""Posts of the in-memory broker: sent along the line, told to a callback.

::

    begin ──> on the line ──> arrives: stored ──> told ``Stored``, unless that gets lost
                 │                └─ refused ──> told the refusal
                 ├─ 5 s of silence on a line that is up ──> sent again, with ``resend_expect``
                 └─ the deadline has passed ──> told ``NotStored``, whatever has become of it

Told once at the most: ``_done`` is the sign that nobody was told yet, and abandoning takes it away.
A look every 0.1 s, as on a real connection, because the owner may move the deadline.
"""

from collections.abc import Callable
from functools import partial
from typing import final

import trio

from trio_dagnats.errors import BrokerError, NotStored
from trio_dagnats.transport.memory.line import Line
from trio_dagnats.transport.memory.server import MemoryServer
from trio_dagnats.transport.port import OnStored, Stored
from trio_dagnats.transport.rules import WHAT_WAS_STORED, callback_failed

SILENCE = 5.0
"""Seconds without an acknowledgement after which a store is sent again, as on a real connection."""
SWEEP = 0.1
"""Seconds between two looks at the deadline, as on a real connection."""


@final
class Post:
    """One post; see ``port.Pending``.

    Its calls are made by the clockwork, so its owner is never told from inside ``post``.

    Args:
        server: the server.
        line: the connection's line to it.
        store: stores the message, given the sequence to expect.
        resend_expect: what to expect from the second send on.
        deadline: trio time.
        done: told what became of it.
        loses_ack: says whether this acknowledgement gets lost.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of one message
        self,
        server: MemoryServer,
        line: Line,
        store: Callable[[int | None], Stored],
        resend_expect: int | None,
        deadline: float,
        done: OnStored,
        loses_ack: Callable[[], bool],
    ) -> None:
        self.deadline = deadline
        self._clockwork = server.clockwork
        self._line = line
        self._store = store
        self._resend_expect = resend_expect
        self._done: OnStored | None = done
        self._loses_ack = loses_ack
        self._sent_at: float | None = None

    def begin(self) -> None:
        """Send it for the first time."""
        self._go()
        self._look_later()

    def abandon(self) -> None:
        """See the port."""
        self._done = None

    def _go(self) -> None:
        """Send it; held back, it arrives even after its owner has given up."""
        if self._line.connected and self._line.holding:  # it arrives, whoever still waits then
            resent, self._sent_at = self._sent_at is not None, trio.current_time()
            self._line.send(partial(self._arrive, resent=resent), self.deadline)
        else:
            self._line.send(self._send, self.deadline)

    def _send(self) -> None:
        """Arrive, unless it was abandoned meanwhile: what only waits here can be taken back."""
        if self._done is not None:
            resent, self._sent_at = self._sent_at is not None, trio.current_time()
            self._arrive(resent=resent)

    def _arrive(self, *, resent: bool) -> None:
        """Be stored; an acknowledgement for a line that is cut by now is lost."""
        try:
            stored = self._store(self._resend_expect if resent else None)
        except BrokerError as error:
            self._tell(error)
            return
        if self._line.connected and not self._loses_ack():
            self._tell(Stored(sequence=stored.sequence, duplicate=stored.duplicate, resent=resent))

    def _look_later(self) -> None:
        self._clockwork.at(trio.current_time() + SWEEP, self._look)

    def _look(self) -> None:
        """End it at its deadline; break a silence."""
        now = trio.current_time()
        if self._done is None:
            return
        if now >= self.deadline:
            self._tell(NotStored("the server did not answer in time"))
            return
        sent_at = self._sent_at
        if sent_at is not None and now - sent_at > SILENCE and self._line.connected:
            self._go()
        self._look_later()

    def _tell(self, result: Stored | BrokerError) -> None:
        """Tell the owner, once; what it raises is logged, as on a real connection.

        An answer to an earlier send that comes after the deadline finds nobody: it is dropped.
        """
        done, self._done = self._done, None
        if done is None:
            return
        try:
            done(result)
        except Exception as error:  # noqa: BLE001 - the border to what takes messages; it is logged
            callback_failed(WHAT_WAS_STORED, error)
