"""Runs that begin at a time (contract 9.4): a record in a bucket, and a message that wakes.

::

    schedule ──> record (``scheduled``), then message on ``scheduled.<run>``
    the time ──> the message is held back by what is left; at its time the record is read, and
                 deleted: ``scheduled`` begins the run, ``cancelled`` does not
    cancel   ──> record (``cancelled``), written by revision; the message stays and does nothing

The record decides and the message only wakes, so cancelling needs no message to be found. Written
by ``client.schedule``, acted upon by ``local.engine.schedule``; no binary of DagNats reads them
(contract H35), so the client refuses to schedule where nobody would.
"""

from typing import Literal, Self, final

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from trio_dagnats.errors import WireError
from trio_dagnats.wire.ids import Id
from trio_dagnats.wire.text import NS, parse_rfc3339

BUCKET_SCHEDULED = "scheduled_runs"
SCHEDULE_DURABLE = "scheduled-run-timer"
"""What reads the messages, on ``SLEEP_TIMERS``; no binary of DagNats has it (contract H35)."""
SCHEDULED = "scheduled."
MAX_AHEAD_NS = 365 * 86_400 * NS


@final
class ScheduledRun(BaseModel):
    """A run that is to begin; the value under its id, and the body of its message."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    run_id: Id
    workflow_id: str
    input: object = None
    run_at: str
    created_at: str = ""
    status: Literal["scheduled", "cancelled"] = "scheduled"

    @field_validator("run_at")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        try:
            parse_rfc3339(value)
        except WireError as error:
            raise ValueError(str(error)) from error
        return value

    @property
    def due_ns(self) -> int:
        """When it is to begin."""
        return parse_rfc3339(self.run_at)

    @property
    def subject(self) -> str:
        """Where its message is stored; also the message's id."""
        return f"{SCHEDULED}{self.run_id}"

    def to_wire(self) -> dict[str, object]:
        """Return the record as Go writes it."""
        found = self.model_dump(mode="json")
        return found if self.input is not None else {k: v for k, v in found.items() if k != "input"}

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """Read a record.

        Raises:
            WireError: it is none.
        """
        try:
            return cls.model_validate_json(raw)
        except ValidationError as error:
            raise WireError(f"not a scheduled run: {error.errors()[0]['msg']}") from error
