"""Retry policies: when the engine runs a failed step again (contract 6.4, 10.2).

The delay after a failed attempt *a*, before all bounds:

===============  =====================================
``fixed``        ``initial_delay``
``linear``       ``initial_delay * a``
``exponential``  ``initial_delay * multiplier^(a - 1)``
===============  =====================================

Then ``max_delay``, if there is one, and in any case a millisecond at the least and an hour at the
most. Without jitter, as the engine has it: steps that failed together are tried together again.

Acted upon by an engine, never by a worker: what a handler asks for by ``Retryable`` is another
thing, which the worker does by itself (``attempt.outcome``). A step without a policy has failed
with its first failure.
"""

from enum import StrEnum
from typing import Self, final

from pydantic import BaseModel, ConfigDict, Field, model_validator

MIN_DELAY_NS = 1_000_000
MAX_DELAY_NS = 3_600_000_000_000
MAX_ATTEMPTS = 100_000
"""Retries that the engine accepts in a policy."""
LEGACY_DELAY_NS = 5_000_000_000
"""The fixed delay of the old ``retries`` key."""


@final
class Strategy(StrEnum):
    """How the delay grows from retry to retry."""

    FIXED = "fixed"
    LINEAR = "linear"
    EXPONENTIAL = "exponential"


@final
class RetryPolicy(BaseModel):
    """A retry policy; durations in nanoseconds.

    Attributes:
        max_attempts: retries, not executions: a step runs at most once more (contract 6.4).
        strategy: how the delay grows; ``fixed`` when absent.
        initial_delay: the first delay.
        max_delay: the longest delay, 0 for no bound but the engine's hour.
        multiplier: for ``exponential``; 0 counts as 0, as the engine takes it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_attempts: int = Field(ge=0, le=MAX_ATTEMPTS)
    strategy: Strategy = Strategy.FIXED
    initial_delay: int = Field(default=0, ge=0, strict=True)
    max_delay: int = Field(default=0, ge=0, strict=True)
    multiplier: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        if self.max_delay and self.initial_delay > self.max_delay:
            raise ValueError(
                f"initial_delay {self.initial_delay} is more than max_delay {self.max_delay}"
            )
        return self

    def to_wire(self) -> dict[str, object]:
        """Return the policy as Go writes it."""
        written: dict[str, object] = {
            "max_attempts": self.max_attempts,
            "strategy": self.strategy.value,
            "initial_delay": self.initial_delay,
            "max_delay": self.max_delay,
        }
        return {**written, "multiplier": self.multiplier} if self.multiplier else written

    def delay_ns(self, attempt: int) -> int:
        """Return the delay before the retry that follows a failed attempt (from 1), nanoseconds.

        Never 0: a timer of the engine's has a millisecond at the least.
        """
        if self.strategy is Strategy.LINEAR:
            delay = self.initial_delay * attempt
        elif self.strategy is Strategy.EXPONENTIAL:
            delay = self._grown(attempt)
        else:
            delay = self.initial_delay
        if self.max_delay:
            delay = min(delay, self.max_delay)
        return min(max(delay, MIN_DELAY_NS), MAX_DELAY_NS)

    def _grown(self, attempt: int) -> int:
        """Return the exponential delay; a power that no float holds is more than any bound."""
        try:
            return round(min(self.initial_delay * self.multiplier ** (attempt - 1), MAX_DELAY_NS))
        except OverflowError:
            return MAX_DELAY_NS


def legacy(retries: int) -> RetryPolicy:
    """Return what the old ``retries`` key means."""
    return RetryPolicy(max_attempts=retries, initial_delay=LEGACY_DELAY_NS)
