"""A bucket of tokens that are taken in advance (contract 1.3, ``rate_limits``). Pure.

Taking in advance makes the order of asking the order of going, and needs no list of who waits:
the one who asks while the bucket is empty is told how long it will take, and the tokens count as
spent.
"""

from typing import Self, final

from pydantic import BaseModel, ConfigDict

from trio_dagnats.errors import WireError


@final
class TokenBucket(BaseModel):
    """How many tokens there are; below zero, so many are promised to tasks that wait.

    Attributes:
        tokens: how many.
        last_refill_ns: when the newest of them came in.
        limit: how many there can be.
        period_ns: how long it takes for so many to come in.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    tokens: int
    last_refill_ns: int
    limit: int
    period_ns: int

    @classmethod
    def full(cls, limit: int, period_ns: int, now_ns: int) -> Self:
        """Return a bucket that nobody has taken from yet."""
        return cls(tokens=limit, last_refill_ns=now_ns, limit=limit, period_ns=period_ns)

    @classmethod
    def read(cls, raw: bytes) -> Self:
        """Read a stored bucket.

        Raises:
            WireError: it is none.
        """
        try:
            return cls.model_validate_json(raw)
        except ValueError as error:
            raise WireError(f"not a rate limit's bucket: {error}") from error

    def take(self, units: int, limit: int, period_ns: int, now_ns: int) -> tuple[Self, int]:
        """Take tokens; return the bucket and the nanoseconds until they are there.

        ``limit`` and ``period_ns`` are those in force now: a workflow may have been changed.
        """
        filled = self._filled(limit, period_ns, now_ns)
        tokens = filled.tokens - units
        left = filled.model_copy(update={"tokens": tokens})
        if tokens >= 0:
            return left, 0
        due_ns = filled.last_refill_ns + -(tokens * period_ns // limit)
        return left, max(0, due_ns - now_ns)

    def _filled(self, limit: int, period_ns: int, now_ns: int) -> Self:
        came = max(0, now_ns - self.last_refill_ns) * limit // period_ns
        last_ns = self.last_refill_ns + came * period_ns // limit
        tokens = self.tokens + came
        if tokens >= limit:
            tokens, last_ns = limit, max(now_ns, self.last_refill_ns)
        return self.model_copy(
            update={
                "tokens": tokens,
                "last_refill_ns": last_ns,
                "limit": limit,
                "period_ns": period_ns,
            }
        )
