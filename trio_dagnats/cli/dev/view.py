"""Showing what all runs do: a live view in a terminal, else a line for each event."""

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
    """Show the events of all runs until cancelled; ready when none is missed any more."""
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
    """The live view: frames of a board, drawn by a task of ours and no thread."""

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
        return self._board.draw(time.time_ns())


def tell_for(screen: Screen) -> Callable[[bytes], None] | None:
    """Return where the output of a worker goes; None to let it share our own streams."""
    if screen.as_json:
        return _writer(lambda: sys.stderr)
    # The live view stands in for ``sys.stdout`` and writes above itself.
    return _writer(lambda: sys.stdout) if screen.is_live else None


def _writer(stream: Callable[[], TextIO]) -> Callable[[bytes], None]:
    decoder = getincrementaldecoder("utf-8")("replace")

    def write(data: bytes) -> None:
        stream().write(decoder.decode(data))

    return write
