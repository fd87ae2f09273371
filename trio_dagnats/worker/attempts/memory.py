"""What an attempt remembers beyond itself: its note, and the signals that its handler has had.

An ordinary attempt has none: it is made on its first use (:attr:`Attempt.memory`), by a redelivery,
a wait, a retry in place or a hand-back.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import final

from trio_dagnats.attempt.note import Note
from trio_dagnats.attempt.outcome import Completed, Settlement
from trio_dagnats.attempt.past import MAX_CHANCES
from trio_dagnats.wire.task import Task
from trio_dagnats.worker.engine.step_store import StepStore

NO_NOTE = Note(dispatch=0)
"""Stands for the note until it is read."""


@final
class Memory:
    """The note of one dispatch, and what its attempt has to add to it.

    A plain class with its defaults in the class, as the attempt is. Written by its own methods
    only. What waits raises ``BrokerError`` if the server does not answer, and may be cancelled.

    Args:
        store: where the note lies.
        task: whose it is.
        dispatch: the identity of the dispatch: the task message's stream sequence.

    Attributes:
        note: the note as this attempt would write it.
        is_read: it was read; unread it is never written, for that would lose what it says.
        is_stored: there is one on the server, so that the outcome has to delete it.
        starts: those before this one that could still be held against the task.
        pauses: the handler's calls of ``pause`` so far.
        signals: revisions of signals that this attempt has returned to its handler.
        uncommitted: some of them are not yet noted as consumed.
        checkpointed: the handler has stored a checkpoint.
    """

    note: Note = NO_NOTE
    is_read: bool = False
    is_stored: bool = False
    starts: int = 0
    pauses: int = 0
    signals: Mapping[str, int] = MappingProxyType({})
    uncommitted: bool = False
    checkpointed: bool = False

    def __init__(self, store: StepStore, task: Task, dispatch: int) -> None:
        self._store = store
        self._task = task
        self._dispatch = dispatch

    @property
    def all_signals(self) -> Mapping[str, int]:
        """Revisions of the signals that were consumed, or returned to the handler; by name."""
        return {**self.note.signals, **self.signals}

    async def read(self) -> None:
        """Read the note once, when it is first needed."""
        if not self.is_read:
            self.note = await self._store.load_note(self._task, self._dispatch)
            self.is_read = True

    async def write(self) -> None:
        """Write the note, unless it could not be read."""
        if self.is_read:
            await self._store.save_note(self._task, self.note)
            self.is_stored = True

    async def drop(self) -> None:
        """Delete the note."""
        await self._store.drop_note(self._task)

    def outlives(self, outcome: Settlement | None) -> bool:
        """Say whether the note has to outlive an outcome (None if it was another worker's).

        One that remembers signals must outlive a retry and an iteration.
        """
        return bool(self.note.signals) and not isinstance(outcome, Completed)

    def take_up(self, starts: int) -> None:
        """Go on after earlier deliveries; the note has been read.

        Args:
            starts: the ``step.started`` events of this dispatch so far.
        """
        self.is_stored = self.note != Note(dispatch=self._dispatch)
        self.starts = starts

    async def got_further(self, *, chance: bool = False) -> None:
        """Note, once per start, that it has got further than those before it.

        Args:
            chance: it may be no progress at all, so it counts ``MAX_CHANCES`` times only.
        """
        starts = self.starts
        if starts and not (chance and self.note.chances >= MAX_CHANCES):
            self.starts = 0
            self.note = self.note.with_progress(starts, chance=chance)
            await self.write()

    def let_go(self, *, retry: bool = False) -> None:
        """Count that the attempt is let go on purpose; :meth:`write` has to follow."""
        self.note = self.note.with_retry() if retry else self.note.with_let_go()

    def count_pause(self) -> int:
        """Count a pause; return which one of the dispatch it is, from 1."""
        self.pauses += 1
        return self.pauses

    async def begin_pause(self, number: int, until_ns: int) -> None:
        """Note that a pause has begun, and that the signals until here are consumed."""
        self.note = self.note.with_pause(number, until_ns).with_signals(self.signals)
        await self.write()

    def newest(self, signal: str) -> int:
        """Return the revision of a signal after which its values are new; 0 for any."""
        return max(self.signals.get(signal, 0), self.note.signals.get(signal, 0))

    def received(self, signal: str, revision: int) -> None:
        """Remember that the handler has a signal's value; its next commit makes that final."""
        newest = max(revision, self.signals.get(signal, 0))
        self.signals = {**self.signals, signal: newest}
        self.uncommitted = True

    async def commit_signals(self) -> None:
        """Count the signals that the handler has received as consumed."""
        if self.uncommitted:
            await self.read()
            self.note = self.note.with_signals(self.signals)
            await self.write()
            self.uncommitted = False

    def resume_loop(self, signals: Mapping[str, int]) -> None:
        """Take over the signals that a loop's iterations before this one have consumed."""
        self.signals = {**signals, **self.signals}

    def stored_checkpoint(self, *, with_signals: bool = False) -> None:
        """Remember that a checkpoint is stored; a loop's state holds the signals as well."""
        self.checkpointed = True
        if with_signals:
            self.uncommitted = False
