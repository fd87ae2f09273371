"""Streams in memory: what nats-server keeps, and in which order it checks. No time of its own.

Pure but for what it keeps: the wall clock is an argument (``now_ns``), so that a test may be in any
year. Sequences count up from 1 and are never given twice, also when messages are taken out; so a
dispatch, which is a sequence, never means two tasks.

A message goes for one of four reasons: it was acknowledged (a work queue), a newer one of its key
came (a bucket), it was cleared, or it is past its age.
"""

from collections.abc import Iterator, Mapping
from typing import final

from trio_dagnats.errors import Conflict
from trio_dagnats.transport.memory.consumers import Consumer
from trio_dagnats.transport.memory.subjects import matches
from trio_dagnats.transport.port import Record, Stored, StreamSpec
from trio_dagnats.wire.names import MSG_ID


@final
class Stream:
    """A stream, or a bucket (``max_per_subject`` 1).

    Args:
        spec: its configuration.
        max_per_subject: how many messages of one subject are kept, 0 for all.

    Attributes:
        consumers: its durables by their names; written to by the server and by ``delete_consumer``.
    """

    def __init__(self, spec: StreamSpec, max_per_subject: int = 0) -> None:
        self.spec = spec
        self.max_per_subject = max_per_subject
        self.consumers: dict[str, Consumer] = {}
        self._records: dict[int, Record] = {}
        self._by_subject: dict[str, list[int]] = {}
        self._ids: dict[str, tuple[int, int]] = {}
        self._last = 0

    def takes(self, subject: str) -> bool:
        """Say whether a subject is stored here."""
        return any(matches(pattern, subject) for pattern in self.spec.subjects)

    def store(
        self,
        subject: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        msg_id: str,
        expect: int | None,
        now_ns: int,
    ) -> Stored:
        """Store a message.

        The condition is checked before the id: sent again with both, a stored message gets a
        conflict, not a duplicate (contract 14, executed).

        Raises:
            Conflict: the subject's last sequence is another one.
        """
        known = self._by_subject.get(subject)
        last = known[-1] if known else 0
        if expect is not None and expect != last:
            raise Conflict(f"wrong last sequence: {last}")
        seen = self._ids.get(msg_id) if msg_id else None
        if seen is not None and now_ns - seen[1] < self.spec.duplicate_window_ns:
            return Stored(sequence=seen[0], duplicate=True)
        self._last += 1
        if msg_id:
            self._ids[msg_id] = (self._last, now_ns)
            headers = {**headers, MSG_ID: msg_id}
        self._records[self._last] = Record(
            sequence=self._last, subject=subject, body=body, time_ns=now_ns, headers=dict(headers)
        )
        kept = self._by_subject.setdefault(subject, [])
        kept.append(self._last)
        if self.max_per_subject and len(kept) > self.max_per_subject:
            self._records.pop(kept.pop(0))
        return Stored(sequence=self._last)

    def get(self, sequence: int) -> Record | None:
        """Return a message that is still there."""
        return self._records.get(sequence)

    def remove(self, sequence: int) -> None:
        """Take a message out; one that is gone is no error, for an ``+ACK`` may come twice."""
        record = self._records.pop(sequence, None)
        if record is not None:
            self._by_subject[record.subject].remove(sequence)

    def clear(self, pattern: str) -> None:
        """Take out all messages that a filter names."""
        for sequence in [s for s, r in self._records.items() if matches(pattern, r.subject)]:
            self.remove(sequence)

    def read(self, pattern: str, now_ns: int) -> Iterator[Record]:
        """Read the messages that a filter names, oldest first, without those past their age."""
        for record in list(self._records.values()):
            if matches(pattern, record.subject) and not self._is_old(record, now_ns):
                yield record

    def last(self, subject: str, now_ns: int) -> Record | None:
        """Return the newest message of a subject."""
        kept = self._by_subject.get(subject)
        record = self._records[kept[-1]] if kept else None
        return None if record is None or self._is_old(record, now_ns) else record

    def _is_old(self, record: Record, now_ns: int) -> bool:
        """Say whether a message is past the stream's age: not taken out, but no reader sees it."""
        return bool(self.spec.max_age_ns) and now_ns - record.time_ns >= self.spec.max_age_ns
