"""A worker's entry in the directory, and its status (contract 8.1, 8.2)."""

from typing import final

from pydantic import BaseModel, ConfigDict, ValidationError

from trio_dagnats.errors import WireError
from trio_dagnats.wire.text import NS, compact

LIVE_FOR_NS = 60 * NS
"""Readers ignore entries whose revision is older than this by the server's clock."""


@final
class WorkerRegistration(BaseModel):
    """The directory entry of one worker, as it stands in the bucket ``workers``.

    Attributes:
        worker_id: the worker's name, a legal key.
        task_types: the served task types.
        language: ``python`` for ours, ``go`` or ``http`` for others.
        transport: ``nats``, or ``bridge`` for workers behind the HTTP bridge.
        max_tasks: attempts at once (the Go worker writes its number of task types).
        metadata: free text fields.
        pid: the process id.
        hostname: the machine's name.
        version: the version of the worker's SDK.
        last_seen: RFC 3339, stamped at every write; liveness goes by the entry's revision.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    worker_id: str
    task_types: tuple[str, ...]
    language: str = "python"
    transport: str = "nats"
    max_tasks: int = 0
    metadata: dict[str, str] | None = None
    pid: int = 0
    hostname: str = ""
    version: str = ""
    last_seen: str = ""

    def to_bytes(self) -> bytes:
        """Write the entry; what is not set is left out."""
        return self.model_dump_json(exclude_none=True).encode()

    @classmethod
    def from_bytes(cls, raw: bytes) -> "WorkerRegistration":
        """Read an entry, whoever wrote it.

        Raises:
            WireError: it is none.
        """
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise WireError(f"not a worker's entry: {first['loc']}: {first['msg']}") from error


def status_body(worker_id: str, cancelled_tasks_skipped: int) -> bytes:
    """Write the value of ``worker_status``."""
    return compact({"worker_id": worker_id, "cancelled_tasks_skipped": cancelled_tasks_skipped})


def is_live(entry_time_ns: int, now_ns: int) -> bool:
    """Say whether an entry whose revision was stored then still counts as alive."""
    return now_ns - entry_time_ns < LIVE_FOR_NS
