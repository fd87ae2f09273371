"""What a worker serves: a task type, or a worker group's share of one."""

from dataclasses import dataclass
from math import isfinite
from typing import final

from trio_dagnats.errors import UsageError
from trio_dagnats.wire.names import check_group, check_task_type

MIN_ACK_WAIT = 1.0
"""Seconds; such a lease is renewed every third of a second."""
MAX_ACK_WAIT = 86_400.0
"""Seconds, a day: so long nobody gets a task whose worker has died."""
MAX_CONCURRENCY = 100_000
"""The ``max_ack_pending`` of our durables: more could not be delivered."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A served task type, as far as pulling its tasks is concerned.

    The half of a handler that the intake, the durables and the directory need; what runs is the
    other half, ``attempts.Program``. Made once by ``handlers.register``, never changed.

    Attributes:
        task_type: the task name of workflow steps.
        group: the ``worker_group`` served, empty for steps of any group.
        concurrency: attempts of this handler at once, None for the worker's own bound.
        ack_wait: seconds of the lease on a task message.
    """

    task_type: str
    group: str
    concurrency: int | None
    ack_wait: float

    def __post_init__(self) -> None:
        """Check every value, so that a handler that exists is one that can be served."""
        check_task_type(self.task_type)
        if self.group:
            check_group(self.group)
        if self.concurrency is not None and not 1 <= self.concurrency <= MAX_CONCURRENCY:
            raise UsageError(
                f"concurrency of handler {self.task_type!r} must be 1 to {MAX_CONCURRENCY} "
                f"or None, not {self.concurrency!r}"
            )
        if not (isfinite(self.ack_wait) and MIN_ACK_WAIT <= self.ack_wait <= MAX_ACK_WAIT):
            raise UsageError(
                f"ack_wait of handler {self.task_type!r} must be {MIN_ACK_WAIT:g} to "
                f"{MAX_ACK_WAIT:g} seconds, not {self.ack_wait!r}"
            )
