"""The part of the port that reads and writes key-value buckets."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from trio_dagnats.transport.values import Entry


class Buckets(Protocol):
    """The buckets of a server; every deadline is trio time."""

    async def kv_get(self, bucket: str, key: str, *, deadline: float) -> Entry | None:
        """Read a key; None if it is absent or deleted.

        Raises:
            Missing: no such bucket.
        """
        ...

    async def kv_get_many(
        self, bucket: str, keys: Sequence[str], *, deadline: float
    ) -> Mapping[str, Entry]:
        """Read several keys (1000 at most) by one request; absent and deleted ones are left out.

        Raises:
            Missing: no such bucket.
            NotStored: no answer in time.
        """
        ...

    async def kv_put(
        self, bucket: str, key: str, value: bytes, *, expect: int | None = None, deadline: float
    ) -> int:
        """Write a key and return its revision.

        Args:
            bucket: the bucket's name.
            key: words joined by dots, without blanks and wildcards.
            value: the bytes.
            expect: write only if the key's last revision is this one (0: the key is new).
            deadline: trio time.

        Raises:
            Conflict: ``expect`` does not hold. Perhaps because this very write was stored, and sent
                again when its acknowledgement got lost: read the key and compare.
            Missing: no such bucket.
            TooLarge: more than ``max_payload``.
            NotStored: not acknowledged in time.
        """
        ...

    async def kv_delete(self, bucket: str, key: str, *, deadline: float) -> None:
        """Write a delete marker; deleting an absent key is no error."""
        ...

    async def kv_entries(self, bucket: str, prefix: str = "", *, deadline: float) -> list[Entry]:
        """Read all living keys that start with ``prefix`` and their values, in key order."""
        ...

    async def kv_clear(self, bucket: str, prefix: str, *, deadline: float) -> None:
        """Take all keys out that start with ``prefix``, which ends with a dot; no markers stay.

        Raises:
            Missing: no such bucket.
        """
        ...
