"""How a worker works: the numbers that its user has chosen, checked.

Beside ``worker`` so that ``service`` can read them without knowing it. Frozen: a worker that runs
has the settings that it was started with.
"""

from dataclasses import dataclass
from math import isfinite
from typing import final

from trio_dagnats.errors import UsageError
from trio_dagnats.worker.intake.served import MAX_CONCURRENCY

MAX_GRACE = 86_400.0
"""Seconds, a day."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a worker works.

    Attributes:
        concurrency: attempts at once.
        grace: seconds that a drain leaves running handlers.
        hard_exit: end the process if it outlives the grace (``deadlines``).
        pipelined: start handlers before their ``step.started`` is stored.

    Raises:
        UsageError: a number is out of its range.
    """

    concurrency: int
    grace: float
    hard_exit: bool = False
    pipelined: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 1 <= self.concurrency <= MAX_CONCURRENCY:
            raise UsageError(
                f"concurrency must be 1 to {MAX_CONCURRENCY}, not {self.concurrency!r}"
            )
        if not (isfinite(self.grace) and 0 <= self.grace <= MAX_GRACE):
            raise UsageError(f"grace must be 0 to {MAX_GRACE:g} seconds, not {self.grace!r}")
