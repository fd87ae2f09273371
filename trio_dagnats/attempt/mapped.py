"""Entries of a durable map: each says that one item is finished, and with which result.

An entry counts for the item that stands at its place now only if it is the same item for the same
function: a fingerprint tells. So what changed between two tries runs again, and nothing else.

One key for each item, ``<run>.<step>=map.<iteration>.<map>.<place>``, written when the item is
finished: a worker that dies loses the items that it was about to finish, not those before. Keys
begin with the iteration, so one iteration's can be cleared together (``wire.names.map_prefix``).
Written and read by ``worker.context.durable_map`` through ``worker.engine.step_store``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import final

_ENTRY = re.compile(rb'\{"item":"([0-9a-f]{32})","value":(.+)\}', re.DOTALL)


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """A finished item: its fingerprint, and its result as JSON."""

    item: str
    value: bytes


def fingerprint(function: str, item: bytes) -> str:
    """Return what tells an item (its JSON) for a function (its name) from others."""
    digest = blake2b(function.encode(), digest_size=16)
    digest.update(b"\0")
    digest.update(item)
    return digest.hexdigest()


def encode(entry: Entry) -> bytes:
    """Write an entry; the result is embedded as it is."""
    return b'{"item":"%b","value":%b}' % (entry.item.encode(), entry.value)


def decode(raw: bytes) -> Entry | None:
    """Read an entry; None if it is none.

    By a pattern and not as JSON, because the result is validated from its bytes by whoever asked.
    """
    found = _ENTRY.fullmatch(raw)
    return Entry(found[1].decode(), found[2]) if found else None


def finished(stored: Mapping[int, bytes], items: Sequence[str]) -> dict[int, bytes]:
    """Return the results, by place, of the items (their fingerprints) that are finished."""
    entries = {place: decode(raw) for place, raw in stored.items() if place < len(items)}
    return {
        place: entry.value
        for place, entry in entries.items()
        if entry is not None and entry.item == items[place]
    }
