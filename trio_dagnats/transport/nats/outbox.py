"""What waits to be sent: a bounded queue that is flushed once per turn, in one write.

Batches decide the throughput (notes E): each write is a system call here and a wake-up in the
server. While many deliveries are being worked on, a short pause between two flushes lets frames
gather; with few it would only add latency, so there is none.

By the number of deliveries in work:

===========  ===========================================================================
up to 4      each frame is written at once by whoever puts it, if nothing waits before it
5 to 31      the task writes what there is, once a turn
from 32 on   the same, then a pause: until 64 frames wait, or for a millisecond
===========  ===========================================================================

A frame stays in the queue while the connection is down, in its order; one whose ``not_after`` has
passed is dropped when its turn comes. That is how a stale answer is never sent after an outage
(design 8.7). Frames are put by every part of this room, and taken from the queue by
one task, ``run``.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, final

import trio
import trio.lowlevel

from trio_dagnats.transport.nats.frames import Frame, check_frame
from trio_dagnats.wire.subjects import SHORT

MAX_FRAMES = 1024
"""Frames of one write; more would keep other tasks waiting (notes E)."""
MAX_QUEUED = 8 * 1024 * 1024
"""Bytes that may wait before senders have to."""
MAX_UNSENT = 1024 * 1024
"""Bytes in the socket's buffer above which nothing more is written (rule D8)."""
BUSY = 32
"""Deliveries in work from which on a pause pays (notes E: it hurts below, helps above)."""
FEW = 4
"""Deliveries in work up to which each frame is written at once: no other one will join it, and the
turn of a task costs more than the system call."""
PAUSE = 0.001
ENOUGH = 64
"""Frames that are worth a write of their own: no pause for more."""
FULL_SOCKET_PAUSE = 0.005
NEVER = sys.maxsize
"""Frames for which the task that writes is not woken: it is at work."""


class Writer(Protocol):
    """The connection's side of the outbox."""

    @property
    def writable(self) -> bool:
        """Whether the connection is up."""
        ...

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken yet."""
        ...

    async def write(self, frames: Sequence[Frame]) -> None:
        """Write frames, in order; must not raise for a connection that is down."""
        ...

    def write_at_once(self, frame: Frame) -> bool:
        """Write one frame without waiting; False if this connection cannot."""
        ...


@final
class Outbox:
    """The queue and the task that empties it.

    Args:
        writer: where frames go.
        active: how many deliveries are being worked on.
    """

    def __init__(self, writer: Writer, active: Callable[[], int]) -> None:
        self._writer = writer
        self._active = active
        self._frames: deque[Frame] = deque()
        self._queued = 0
        self._enough = NEVER
        self._work = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, frame: Frame) -> None:
        """Queue a frame; never waits. Senders of large data call :meth:`wait_for_room` first.

        Every frame comes through here once, before its first byte is written; those that
        :meth:`put_first` takes are such a frame's later sends.

        Raises:
            UsageError: its subjects cannot stand in a line of the protocol; nothing is queued.
        """
        line = frame.subject + frame.reply
        # Nearly every frame passes here: three looks in C, and no call.
        if not line.isprintable() or " " in line or len(line) > SHORT or not frame.subject:
            check_frame(frame)
        if not self._frames and self._active() <= FEW and self._writes_at_once(frame):
            return
        self._frames.append(frame)
        self._queued += len(frame.body)
        if len(self._frames) >= self._enough:
            self.wake()

    def _writes_at_once(self, frame: Frame) -> bool:
        if not self._writer.writable or self._writer.unsent:
            return False
        now = trio.current_time()
        if frame.not_after <= now:
            return True  # as if it had waited for too long
        frame.sent_at = frame.sent_at or now
        return self._writer.write_at_once(frame)

    def put_first(self, frames: Iterable[Frame]) -> None:
        """Queue frames, in their order, before everything else."""
        again = list(frames)
        self._frames.extendleft(reversed(again))
        self._queued += sum(len(frame.body) for frame in again)
        self.wake()

    def clear(self) -> None:
        """Forget what is queued: there is no connection any more to send it on."""
        self._frames.clear()
        self._queued = 0
        self._room.unpark_all()

    def wake(self) -> None:
        """Look at the queue again: there is enough in it, or the connection is back."""
        self._enough = NEVER
        self._work.unpark_all()

    @property
    def full(self) -> bool:
        """Whether senders have to wait."""
        return self._queued > MAX_QUEUED

    async def wait_for_room(self) -> None:
        """Wait while too much is queued."""
        while self.full:
            await self._room.park()

    async def run(self) -> None:
        """Flush until cancelled."""
        while True:
            if not self._frames or not self._writer.writable:
                await self._wait_for(1)
                continue
            if self._writer.unsent > MAX_UNSENT:
                await trio.sleep(FULL_SOCKET_PAUSE)
                continue
            await self._writer.write(self._take())
            await trio.lowlevel.checkpoint()
            if len(self._frames) < ENOUGH and self._active() >= BUSY:
                await self._gather()

    async def _gather(self) -> None:
        """Let a batch come together: until it is big enough, or for ``PAUSE``."""
        with trio.move_on_after(PAUSE):
            await self._wait_for(ENOUGH)

    async def _wait_for(self, frames: int) -> None:
        self._enough = frames
        try:
            await self._work.park()
        finally:
            self._enough = NEVER

    def _take(self) -> list[Frame]:
        """Take the next frames, without those whose time is over (design 8.7)."""
        now, queue, batch = trio.current_time(), self._frames, list[Frame]()
        taken = 0
        while queue and len(batch) < MAX_FRAMES:
            frame = queue.popleft()
            taken += len(frame.body)
            if frame.not_after > now:
                if not frame.sent_at:
                    frame.sent_at = now
                batch.append(frame)
        self._queued -= taken
        if not self.full:
            self._room.unpark_all()
        return batch
