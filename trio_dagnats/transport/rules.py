"""What both brokers must say alike: entries of buckets, absent buckets, messages too large."""

from collections.abc import Iterable

from trio_dagnats.errors import Missing, TooLarge, UsageError
from trio_dagnats.logs import Log
from trio_dagnats.transport.values import Entry, Record
from trio_dagnats.wire.names import kv_subject
from trio_dagnats.wire.subjects import SHORT, TOKENS, check_key, check_name, check_prefix

log = Log("trio_dagnats.transport")

OPERATION = "KV-Operation"
DELETED = frozenset({"DEL", "PURGE"})


def entry_of(bucket: str, record: Record) -> Entry | None:
    """Read a bucket's record; None for a delete marker."""
    if record.headers.get(OPERATION) in DELETED or record.headers.get("Nats-Marker-Reason"):
        return None
    return Entry(
        key=record.subject.removeprefix(kv_subject(bucket, "")),
        value=record.body,
        revision=record.sequence,
        time_ns=record.time_ns,
    )


def entries_of(bucket: str, records: Iterable[Record]) -> dict[str, Entry]:
    """Read a bucket's records by their keys, without the delete markers."""
    entries = (entry_of(bucket, record) for record in records)
    return {entry.key: entry for entry in entries if entry is not None}


def key_subject(bucket: str, key: str) -> str:
    """Return the subject of a key, which stands for no other key.

    Raises:
        UsageError: the bucket's name or the key is none.
    """
    # A worker with a backlog reads a run for each of its tasks: no call for an ordinary key.
    if len(key) > SHORT or not TOKENS.fullmatch(key):
        check_key(key)
    return f"$KV.{check_name(bucket)}.{key}"


def prefix_subject(bucket: str, prefix: str) -> str:
    """Return what stands for all keys that begin so, and for others unless that ends with a dot.

    Raises:
        UsageError: the bucket's name is none, or no key can begin so.
    """
    check_prefix(prefix)
    return kv_subject(check_name(bucket), f"{prefix}>" if prefix.endswith(".") else ">")


def below_subject(bucket: str, prefix: str) -> str:
    """Return what stands for all keys below a prefix, and for nothing else.

    Raises:
        UsageError: as :func:`prefix_subject`, or the prefix does not end with a dot.
    """
    if not prefix.endswith("."):
        raise UsageError(f"prefix {prefix!r} is not legal: end it with a dot")
    return prefix_subject(bucket, prefix)


def check_size(size: int, subject: str, max_payload: int) -> None:
    """Refuse what the server would answer by closing the connection (notes A2, rule D9).

    Raises:
        TooLarge: headers and body together are too many bytes.
    """
    if size > max_payload:
        raise TooLarge(
            f"{size} bytes for {subject!r} are more than the {max_payload} that this server takes "
            "(its max_payload)"
        )


WHAT_WAS_STORED = "acknowledgements"
"""Stands for the subject where the answers to posts come in."""


def callback_failed(subject: str, error: Exception) -> None:
    """Log the exception that a callback has let out: its own defect, and nobody else's trouble.

    It must not end the connection's tasks, which would make the whole worker deaf.
    """
    text = "what takes %s has failed with one of them; it gets the next ones"
    log.error(text, subject, exc_info=error)


def no_bucket(bucket: str) -> Missing:
    """Build the error for a bucket that this server has not."""
    return Missing(
        f"this server has no key-value bucket {bucket!r}: `dagnats serve` creates it, the split "
        f"engine does not; create it with `nats kv add {bucket}`"
    )
