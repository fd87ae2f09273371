"""Key-value buckets: streams by another name (contract 1.3).

A bucket ``b`` is the stream ``KV_b``, a key ``k`` the subject ``$KV.b.k``, a revision the sequence
of its message, and a deletion a message with the header ``KV-Operation: DEL``. So each operation is
one on a stream:

==============  ===================================================  =========================
operation       request                                              costs
==============  ===================================================  =========================
``get``         ``DIRECT.GET`` by subject (else ``STREAM.MSG.GET``)  1 request
``get_many``    ``DIRECT.GET`` with ``multi_last``                   1 request, n answers
``put``         a publish with acknowledgement                       1 request
``delete``      the same, with the header and no body                1 request
``entries``     an ephemeral consumer, ``last_per_subject``          3 requests, n answers
``clear``       ``STREAM.PURGE`` with a filter                       1 request
==============  ===================================================  =========================

Under a JetStream domain or prefix (``ConnectOptions``) nobody answers for a bucket that is absent,
so there keys are read through ``STREAM.MSG.GET``, a bucket is asked for before its first write or
``get_many``, and a write goes to the key's subject below the API's prefix.

nats-py has all of that; it is not used, because each of its calls crosses to asyncio, a watch comes
back slowly after an outage (notes A4), and an empty value reads as None there.
"""

from collections.abc import Sequence
from typing import final

from trio_dagnats.errors import Missing
from trio_dagnats.transport.nats.frames import Frame
from trio_dagnats.transport.nats.jsapi import NO_RESPONDERS, JsApi
from trio_dagnats.transport.nats.publisher import Publisher
from trio_dagnats.transport.nats.records import Records, direct_record
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
    """Reads and writes buckets; see ``port.Buckets``.

    What is read is never kept here, so two calls may see two revisions; only that a bucket of
    another domain is there is remembered. A bucket that is not there is ``Missing`` with a remedy
    (``rules.no_bucket``) from every method: with the split binaries of DagNats some buckets are
    missing, and a worker has to live without them.

    Args:
        api: asks the server.
        records: reads more than one message.
        publisher: writes.
    """

    def __init__(self, api: JsApi, records: Records, publisher: Publisher) -> None:
        self._api = api
        self._records = records
        self._publisher = publisher
        self._elsewhere = api.prefix != JETSTREAM_API
        self._seen: set[str] = set()

    async def get(self, bucket: str, key: str, deadline: float) -> Entry | None:
        """Read a key directly from the stream's store.

        A direct read finds no responder where the bucket is missing, and also where it was made
        without ``allow_direct``; only the slower way tells the two apart.
        """
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
        """Write a key; return its revision.

        A write has no message id, so the server cannot know a second send of it. Sent again after
        a lost acknowledgement it is one revision more of the same value; with ``expect`` the second
        send is a ``Conflict``, although the first one has succeeded. Who writes by revision must
        therefore read after a conflict and compare, as the local engine does for snapshots.
        """
        return await self._write(bucket, key, value, dict(NO_HEADERS), expect, deadline)

    async def delete(self, bucket: str, key: str, deadline: float) -> None:
        """Write a delete marker.

        The key's subject keeps one message, the marker, until the next write, the bucket's TTL or
        ``clear`` takes it; a reader sees no key. So a watch of the subject hears of a deletion.
        """
        await self._write(bucket, key, b"", {OPERATION: "DEL"}, None, deadline)

    async def entries(self, bucket: str, prefix: str, deadline: float) -> list[Entry]:
        """Read all living keys that begin with a prefix.

        A subject filter knows whole words only. A prefix that ends with a dot is one, and the
        server sends nothing else; with any other the whole bucket is read and looked through here.
        """
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
        """Publish to a key's subject; no stream for it means that the bucket is missing."""
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
        """Read a key through the API of the stream, which says why it cannot."""
        try:
            return await self._records.last(f"KV_{bucket}", subject, deadline)
        except Missing as missing:
            raise no_bucket(bucket) from missing
