"""What the live view shows: the newest runs, and what is known of each. Pure.

Fed by ``view``: events as they come (:meth:`Board.take`), snapshots when they were read
(:meth:`Board.put`). A row is drawn when it has a snapshot. Bounded in both directions, for
``dev`` runs all day.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import final

from rich.console import Group, RenderableType
from rich.text import Text

from trio_dagnats.cli.output import render
from trio_dagnats.client import RunTimeline
from trio_dagnats.wire.events import HistoryEvent

MOST_RUNS = 20
"""Rows; the run whose first event is the oldest goes first."""
MOST_EVENTS = 5000
"""Events kept of one run; the view of a longer one loses its oldest attempts."""
MOST_ATTEMPTS = 5
"""Drawn of one step: several runs share a screen."""


@final
@dataclass(slots=True)
class Row:
    """One run.

    Attributes:
        events: those that were seen, oldest first.
        found: the run as it was read last, with the attempts that the events tell of.
    """

    events: list[HistoryEvent] = field(default_factory=list)
    found: RunTimeline | None = None


@final
class Board:
    """The newest runs. ``changed`` are those whose snapshot has to be read again."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._rows: OrderedDict[str, Row] = OrderedDict()
        self.changed: set[str] = set()

    def take(self, event: HistoryEvent) -> None:
        """Take an event of any run."""
        row = self._rows.setdefault(event.run_id, Row())
        if len(row.events) == MOST_EVENTS:
            del row.events[1]  # the first one has the definition
        row.events.append(event)
        self.changed.add(event.run_id)
        if len(self._rows) > MOST_RUNS:
            gone, _ = self._rows.popitem(last=False)
            self.changed.discard(gone)

    def events(self, run_id: str) -> list[HistoryEvent]:
        """Return the events of a run."""
        row = self._rows.get(run_id)
        return row.events if row else []

    def put(self, found: RunTimeline) -> None:
        """Put what is known of a run now."""
        row = self._rows.get(found.run.run_id)
        if row is not None:
            row.found = found

    @property
    def moving(self) -> list[str]:
        """The runs that have not ended.

        Not every end is an event (a cancellation by deadline), so these are read again from time
        to time.
        """
        return [
            run_id
            for run_id, row in self._rows.items()
            if row.found is None or not row.found.run.status.is_terminal
        ]

    def draw(self, now_ns: int) -> RenderableType:
        """Draw the newest run first: the terminal cuts what does not fit at the bottom.

        Runs that go on, the newest one and those that failed with all their steps; others as a
        line.
        """
        known = [row.found for row in reversed(self._rows.values()) if row.found is not None]
        drawn: list[RenderableType] = [Text(self._title, style="bold")]
        for number, found in enumerate(known):
            if number == 0 or not found.run.status.is_terminal:
                drawn.append(render.run_tree(found, now_ns, whole_ids=False, most=MOST_ATTEMPTS))
            else:
                drawn.append(render.run_line(found, now_ns, whole_ids=False))
        if not known:
            drawn.append(Text("no runs yet: trio-dagnats start WORKFLOW --input JSON"))
        return Group(*drawn)
