"""What an attempt keeps beside its run: the user's checkpoint, the attempt note, a map's entries.

They live in the bucket ``checkpoints``, which only ``dagnats serve`` creates (contract 1.1). On a
split engine without it everything else works: notes are silently not kept (a hand-back then looks
like a plain redelivery), and the calls that a handler makes say what is missing.
"""

from typing import final

from trio_dagnats.attempt.note import Note, decode, encode
from trio_dagnats.errors import Missing
from trio_dagnats.transport.patience import deadline_in
from trio_dagnats.transport.port import Broker
from trio_dagnats.transport.rules import no_bucket
from trio_dagnats.wire.names import (
    BUCKET_CHECKPOINTS,
    BUCKET_SIGNALS,
    beside_key,
    checkpoint_key,
    note_key,
    signal_key,
)
from trio_dagnats.wire.task import Task

ITEMS_PATIENCE = 60.0
"""Seconds for reading all entries of a durable map, which may be many megabytes."""


@final
class StepStore:
    """Checkpoints, notes, entries of durable maps, and outgoing signals.

    No write is conditional: each is one key, the last one wins, and one attempt at a time has the
    lease of a step's task. Where no other bound is said, a server that has not answered within
    ``patience.PATIENCE`` seconds is a ``NotStored``.

    Args:
        broker: the connected server.
        notes: whether the bucket ``checkpoints`` exists.
    """

    def __init__(self, broker: Broker, *, notes: bool) -> None:
        self._broker = broker
        self.notes = notes

    async def load_checkpoint(self, task: Task, *, beside: bool = False) -> bytes | None:
        """Read the step's checkpoint, None if there is none (or no bucket: contract 7).

        ``beside`` means the one of a loop's handler, whose state has the usual key.
        """
        if not self.notes:
            return None
        key = _checkpoint(task, beside=beside)
        return await self._read(key)

    async def save_checkpoint(self, task: Task, data: bytes, *, beside: bool = False) -> None:
        """Write the step's checkpoint; ``beside`` as in :meth:`load_checkpoint`.

        Raises:
            Missing: no bucket ``checkpoints``; the text says who creates it.
        """
        if not self.notes:
            raise no_bucket(BUCKET_CHECKPOINTS)
        key = _checkpoint(task, beside=beside)
        await self._broker.kv_put(BUCKET_CHECKPOINTS, key, data, deadline=deadline_in())

    async def load_note(self, task: Task, dispatch: int) -> Note:
        """Read the attempt note as this dispatch may see it; an empty one if there is none."""
        if not self.notes:
            return Note(dispatch=dispatch)
        key = note_key(task.run_id, task.step_id)
        return decode(await self._read(key)).for_dispatch(dispatch)

    async def save_note(self, task: Task, note: Note) -> None:
        """Write the attempt note."""
        if self.notes:
            key = note_key(task.run_id, task.step_id)
            await self._broker.kv_put(BUCKET_CHECKPOINTS, key, encode(note), deadline=deadline_in())

    async def drop_note(self, task: Task) -> None:
        """Delete the attempt note after the outcome."""
        if self.notes:
            key = note_key(task.run_id, task.step_id)
            await self._broker.kv_delete(BUCKET_CHECKPOINTS, key, deadline=deadline_in())

    async def _read(self, key: str) -> bytes | None:
        try:
            entry = await self._broker.kv_get(BUCKET_CHECKPOINTS, key, deadline=deadline_in())
        except Missing:  # deleted under us: as if it had never been there
            return None
        return entry.value if entry else None

    async def load_items(self, prefix: str) -> dict[int, bytes]:
        """Read the entries of a durable map, by the places of their items.

        Raises:
            Missing: no bucket ``checkpoints``.
        """
        if not self.notes:
            raise no_bucket(BUCKET_CHECKPOINTS)
        entries = await self._broker.kv_entries(
            BUCKET_CHECKPOINTS, prefix, deadline=deadline_in(ITEMS_PATIENCE)
        )
        places = ((entry.key.removeprefix(prefix), entry.value) for entry in entries)
        return {int(place): value for place, value in places if place.isdecimal()}

    async def save_item(self, key: str, entry: bytes, *, until: float) -> None:
        """Write an entry of a durable map, not later than ``until`` (trio time)."""
        deadline = min(deadline_in(), until)
        await self._broker.kv_put(BUCKET_CHECKPOINTS, key, entry, deadline=deadline)

    async def clear_items(self, prefix: str) -> None:
        """Take all entries below a prefix out."""
        await self._broker.kv_clear(BUCKET_CHECKPOINTS, prefix, deadline=deadline_in())

    async def send_signal(self, run_id: str, name: str, data: bytes) -> None:
        """Put a signal's value.

        Raises:
            Missing: no bucket ``signals``.
        """
        await self._broker.kv_put(
            BUCKET_SIGNALS, signal_key(run_id, name), data, deadline=deadline_in()
        )


def _checkpoint(task: Task, *, beside: bool) -> str:
    return (beside_key if beside else checkpoint_key)(task.run_id, task.step_id)
