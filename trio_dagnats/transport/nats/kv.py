"""Key-value buckets: streams by another name (contract 1.3)."""

from collections.abc import Sequence
from typing import final

from trio_dagnats.errors import Missing
from trio_dagnats.transport.nats.frames import Frame
from trio_dagnats.transport.nats.jsapi import NO_RESPONDERS, JsApi
from trio_dagnats.transport.nats.records import Records, direct_record
from trio_dagnats.transport.nats.stores import Publisher
from trio_dagnats.transport.options import JETSTREAM_API
from trio_dagnats.transport.port import NO_HEADERS, Entry, Record
from trio_dagnats.transport.rules import (
    OPERATION,
    below_subject,
    entries_of,
    entry_of,
    key_subject,
    no_bucket,
    prefix_subject,
)


@final
class KeyValues:
    """Reads and writes buckets; see ``port.Broker``."""

    def __init__(self, api: JsApi, records: Records, publisher: Publisher) -> None:
        self._api = api
        self._records = records
        self._publisher = publisher
        self._elsewhere = api.prefix != JETSTREAM_API
        self._seen: set[str] = set()

    async def get(self, bucket: str, key: str, deadline: float) -> Entry | None:
        """Read a key directly from the stream's store."""
        subject = key_subject(bucket, key)
        if self._elsewhere:  # nobody says there that a bucket is absent, or has no direct reads
            record = await self._get_slowly(bucket, subject, deadline)
            return entry_of(bucket, record) if record else None
        asked = f"{self._api.subject('DIRECT.GET', f'KV_{bucket}')}.{subject}"
        frame = Frame(asked, b"", not_after=deadline)
        answer = await self._api.ask(frame, deadline)
        if answer.status == NO_RESPONDERS:  # no such bucket, or one without direct reads
            record = await self._get_slowly(bucket, subject, deadline)
            return entry_of(bucket, record) if record else None
        if answer.status:
            return None
        return entry_of(bucket, direct_record(answer))

    async def get_many(self, bucket: str, keys: Sequence[str], deadline: float) -> dict[str, Entry]:
        """Read keys directly from the stream's store, at once if the server can (from 2.11 on)."""
        subjects = [key_subject(bucket, key) for key in keys]
        if self._elsewhere:
            await self._look_for(bucket, deadline)
        if len(keys) > 1:  # a subscription for the answers costs more than the request for one
            records = await self._records.newest_of(f"KV_{bucket}", subjects, deadline)
            if records is not None:
                return entries_of(bucket, records)
        entries = [await self.get(bucket, key, deadline) for key in keys]
        return {entry.key: entry for entry in entries if entry}

    async def put(
        self, bucket: str, key: str, value: bytes, expect: int | None, deadline: float
    ) -> int:
        """Write a key; return its revision."""
        return await self._write(bucket, key, value, dict(NO_HEADERS), expect, deadline)

    async def delete(self, bucket: str, key: str, deadline: float) -> None:
        """Write a delete marker."""
        await self._write(bucket, key, b"", {OPERATION: "DEL"}, None, deadline)

    async def entries(self, bucket: str, prefix: str, deadline: float) -> list[Entry]:
        """Read all living keys that begin with a prefix."""
        wanted = prefix_subject(bucket, prefix)
        try:
            found = await self._records.newest(f"KV_{bucket}", wanted, deadline)
        except Missing as missing:
            raise no_bucket(bucket) from missing
        entries = entries_of(bucket, found)
        return [entries[key] for key in sorted(entries) if key.startswith(prefix)]

    async def clear(self, bucket: str, prefix: str, deadline: float) -> None:
        """Purge the bucket's stream below a prefix: one request, whatever the number of keys."""
        request = {"filter": below_subject(bucket, prefix)}
        try:
            await self._api.call(
                self._api.subject("STREAM.PURGE", f"KV_{bucket}"), request, deadline
            )
        except Missing as missing:
            raise no_bucket(bucket) from missing

    async def _write(
        self,
        bucket: str,
        key: str,
        value: bytes,
        headers: dict[str, str],
        expect: int | None,
        deadline: float,
    ) -> int:
        subject = key_subject(bucket, key)
        if self._elsewhere:
            await self._look_for(bucket, deadline)
        try:
            stored = await self._publisher.store(
                # Over a leaf node keys of another domain are written through its API only.
                f"{self._api.prefix}.{subject}" if self._elsewhere else subject,
                value,
                msg_id="",
                headers=headers,
                expect_last=expect,
                resend_expect=None,
                deadline=deadline,
            )
        except Missing as missing:
            raise no_bucket(bucket) from missing
        return stored.sequence

    async def _look_for(self, bucket: str, deadline: float) -> None:
        """Ask once for a bucket in another domain: there nobody says that it is absent."""
        if bucket in self._seen:
            return
        if not await self._api.has_stream(f"KV_{bucket}", deadline):
            raise no_bucket(bucket)
        self._seen.add(bucket)

    async def _get_slowly(self, bucket: str, subject: str, deadline: float) -> Record | None:
        try:
            return await self._records.last(f"KV_{bucket}", subject, deadline)
        except Missing as missing:
            raise no_bucket(bucket) from missing
