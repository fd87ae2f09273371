"""The attempt note: what one try of a dispatch leaves for the next one (design 8.2).

It stands beside the user's checkpoint under a key that no step id can have. The engine and the Go
worker never read it.

Why there is one at all: the history counts the starts of a dispatch, but cannot tell a start that
killed its worker from one that was handed back on purpose, or that got further than those before
it. Those two are written down, and an ordinary attempt has no note. Counted against a task are::

    starts (history) - let_go - forgiven

Written by the worker's ``Memory``, last write wins: one attempt of a dispatch speaks at a time, by
its lease. What another version wrote must be readable: keys that are not known are ignored, keys
that are missing are zero.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import final

from trio_dagnats.wire.text import MISREAD, compact

_COUNTS = ("let_go", "retries", "forgiven", "chances")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """The newest pause of a dispatch: the ``number``-th, over at ``until_ns``."""

    number: int
    until_ns: int


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A note.

    Attributes:
        dispatch: the stream sequence of the task message it is about.
        let_go: how often a started attempt was let go on purpose.
        retries: how many of these were retries in place.
        forgiven: starts, letting go aside, before the one that has got further than they did.
        chances: how often that was for a checkpoint of the handler's own.
        pause: the newest pause.
        signals: revisions of consumed signals by name; they outlive the dispatch.
    """

    dispatch: int
    let_go: int = 0
    retries: int = 0
    forgiven: int = 0
    chances: int = 0
    pause: Pause | None = None
    signals: Mapping[str, int] = field(default_factory=dict)

    def for_dispatch(self, dispatch: int) -> "Note":
        """Return what this note means to a dispatch: to another one, only its signals."""
        if dispatch == self.dispatch:
            return self
        return Note(dispatch=dispatch, signals=self.signals)

    def with_let_go(self) -> "Note":
        """Return the note after a hand-back."""
        return replace(self, let_go=self.let_go + 1)

    def with_retry(self) -> "Note":
        """Return the note after a retry in place."""
        return replace(self, let_go=self.let_go + 1, retries=self.retries + 1)

    def with_progress(self, starts: int, *, chance: bool = False) -> "Note":
        """Return the note after a start has got further than the ``starts`` before it."""
        forgiven = max(self.forgiven, starts - self.let_go)
        return replace(self, forgiven=forgiven, chances=self.chances + chance)

    def with_pause(self, number: int, until_ns: int) -> "Note":
        """Return the note at the beginning of a pause."""
        return replace(self, pause=Pause(number=number, until_ns=until_ns))

    def with_signals(self, signals: Mapping[str, int]) -> "Note":
        """Return the note after these signals were consumed."""
        return replace(self, signals={**self.signals, **signals})


def encode(note: Note) -> bytes:
    """Write a note; what is empty is left out."""
    counts = {name: getattr(note, name) for name in _COUNTS}
    fields: dict[str, object] = {"dispatch": note.dispatch}
    fields |= {name: count for name, count in counts.items() if count}
    if note.pause:
        fields["pause"] = {"number": note.pause.number, "until_ns": note.pause.until_ns}
    if note.signals:
        fields["signals"] = dict(note.signals)
    return compact(fields)


def decode(raw: bytes | None) -> Note:
    """Read a note; none, or one that cannot be read, is an empty note of no dispatch."""
    try:
        found = json.loads(raw or b"")
        pause = found.get("pause")
        return Note(
            dispatch=int(found["dispatch"]),
            **{name: int(found.get(name, 0)) for name in _COUNTS},
            pause=Pause(number=int(pause["number"]), until_ns=int(pause["until_ns"]))
            if pause
            else None,
            signals={str(name): int(rev) for name, rev in found.get("signals", {}).items()},
        )
    except MISREAD:
        return Note(dispatch=0)
