"""The bounds of an agent loop as its handler may know them. Pure.

The engine counts accepted continues: the ``max_iterations``-th one fails the step, so that the last
iteration must complete. It measures ``max_duration`` from the first continue on, and looks at it at
each later one (contract 6.6). The count is that of our own checkpoint: the number in the task is
lost on retries (contract H12).
"""

from dataclasses import dataclass
from typing import final

from trio_dagnats.wire.text import NS

WARN_PART = 0.8
"""The part of a bound after which a loop is warned, unless its step says ``budget_warn_at``."""


@final
@dataclass(slots=True, kw_only=True)
class LoopBounds:
    """Bounds of one loop, and when they began to count.

    Attributes:
        max_iterations: how often it may run, 0 for no bound that we know.
        max_duration: seconds from the end of the first iteration, 0 for no bound that we know.
        warn_at: the iteration, counted from 1, that is the first to be warned; 0 for our own rule.
        begun_ns: when the first iteration was committed, 0 before.
        warned: the warning was given.
    """

    max_iterations: int = 0
    max_duration: float = 0.0
    warn_at: int = 0
    begun_ns: int = 0
    warned: bool = False

    def iterations_left(self, iteration: int) -> int | None:
        """Return how many iterations may follow the one after ``iteration`` committed ones."""
        return max(0, self.max_iterations - iteration - 1) if self.max_iterations else None

    def duration_left(self, now_ns: int) -> float | None:
        """Return the seconds in which the loop may still continue."""
        if not self.max_duration:
            return None
        spent = (now_ns - self.begun_ns) / NS if self.begun_ns else 0.0
        return max(0.0, self.max_duration - max(0.0, spent))

    def warning(self, iteration: int, now_ns: int) -> str:
        """Say which bound is near; empty if none is, or in the first iteration."""
        left = self.iterations_left(iteration)
        warn_at = self.warn_at or WARN_PART * self.max_iterations
        if left is not None and iteration and iteration + 1 >= warn_at:
            return f"iteration {iteration + 1} of at most {self.max_iterations}: {left} left"
        seconds = self.duration_left(now_ns)
        if seconds is not None and self.max_duration - seconds >= WARN_PART * self.max_duration:
            return f"{seconds:.1f} s left of at most {self.max_duration:g} s"
        return ""
