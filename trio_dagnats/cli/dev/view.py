"""Showing what all runs do: a live view in a terminal, else a line for each event.

Events only say that there is something new; what is drawn is the stored snapshot, read at most
once a frame for each run that has changed. So a burst of events costs no more than one of them,
and a lost event of a run that is shown costs a second at most.
"""

import sys
import time
from codecs import getincrementaldecoder
from collections.abc import Callable
from typing import TextIO, final

import trio
from rich.console import RenderableType
from rich.live import Live

from trio_dagnats.cli.dev.board import Board
from trio_dagnats.cli.output import documents, render, texts
from trio_dagnats.cli.output.screen import Screen
from trio_dagnats.client import Client
from trio_dagnats.client.timeline import timeline
from trio_dagnats.errors import BrokerError
from trio_dagnats.wire.events import HistoryEvent

OnEvent = Callable[[HistoryEvent], None]
"""Called with each event before it is shown; must not wait."""

FRAME = 0.1
"""Seconds between two frames."""
LOOK_AGAIN = 1.0
"""Seconds between two reads of a run that goes on: not every end is an event (contract H27)."""


async def show(
    client: Client,
    screen: Screen,
    title: str,
    on_event: OnEvent,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Show the events of all runs until cancelled; ready when none is missed any more.

    ``on_event`` gets every event, too. Without a live view each one is a line, or a JSON object.

    Raises:
        BrokerError: the subscription was not confirmed in time.
    """
    async with client.watch() as events:
        task_status.started()
        if screen.is_live:
            await _Live(client, screen, Board(title)).run(events, on_event)
            return
        async for event in events:
            on_event(event)
            if screen.as_json:
                screen.line(documents.of_event(event))
            else:
                screen.show(render.event_line(event, run=texts.short(event.run_id)))


@final
class _Live:
    """The live view: frames of a board, drawn by a task of ours and no thread.

    Rich could refresh by a thread of its own. That would read the board while a task changes it,
    and draw while something is said above it; so the frames are drawn by a task.
    """

    def __init__(self, client: Client, screen: Screen, board: Board) -> None:
        self._client = client
        self._screen = screen
        self._board = board
        self._live = Live(
            console=screen.out,
            auto_refresh=False,
            get_renderable=self._draw,
            vertical_overflow="crop",
        )

    async def run(self, events: trio.MemoryReceiveChannel[HistoryEvent], on_event: OnEvent) -> None:
        """Draw until cancelled."""
        with self._live, self._screen.above_view():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._frames)
                async for event in events:
                    on_event(event)
                    self._board.take(event)

    async def _frames(self) -> None:
        """Read what has changed, and draw, until cancelled.

        A frame takes as long as its reads: a slow server makes the view slow, and nothing piles
        up.
        """
        looked = trio.current_time()
        while True:
            await trio.sleep(FRAME)
            if trio.current_time() - looked > LOOK_AGAIN:
                looked = trio.current_time()
                self._board.changed.update(self._board.moving)
            for run_id in sorted(self._board.changed):
                await self._read(run_id)
            self._live.refresh()

    async def _read(self, run_id: str) -> None:
        """Read one run's snapshot and put it on the board.

        It counts as read before it is: an event that comes meanwhile marks it again. A server that
        does not answer leaves it marked, and the view goes on with what it had.
        """
        self._board.changed.discard(run_id)
        events = list(self._board.events(run_id))
        try:
            found = await self._client.run(run_id).snapshot()
        except BrokerError:
            self._board.changed.add(run_id)
            return
        if found is not None:
            self._board.put(timeline(found, events))

    def _draw(self) -> RenderableType:
        """Draw the board as of now; called by rich for each frame."""
        return self._board.draw(time.time_ns())


def tell_for(screen: Screen) -> Callable[[bytes], None] | None:
    """Return where the output of a worker goes; None to let it share our own streams.

    With ``--json`` stdout is for documents alone, so what user code prints goes to stderr,
    whichever of the two it has chosen.
    """
    if screen.as_json:
        return _writer(lambda: sys.stderr)
    # The live view stands in for ``sys.stdout`` and writes above itself.
    return _writer(lambda: sys.stdout) if screen.is_live else None


def _writer(stream: Callable[[], TextIO]) -> Callable[[bytes], None]:
    """Return a function that writes bytes as text.

    A piece may end in the middle of a character. The stream is looked up for each piece: the
    live view replaces it while it draws.
    """
    decoder = getincrementaldecoder("utf-8")("replace")

    def write(data: bytes) -> None:
        stream().write(decoder.decode(data))

    return write
