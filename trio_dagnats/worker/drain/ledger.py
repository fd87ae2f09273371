"""What became of the attempts that were in flight when the worker began to drain.

Read from the attempts themselves when it is asked for, so a line may still change until the worker
has ended. An attempt whose outcome is stored says that, whatever it was cancelled for; else the
word is that of its reason (``attempt/reasons``).
"""

from dataclasses import dataclass
from typing import final

from trio_dagnats.attempt.life import State
from trio_dagnats.attempt.outcome import Completed, Continued
from trio_dagnats.attempt.reasons import ENDINGS
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.engine.settle import Verdict


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """One attempt at the end of its worker.

    Attributes:
        run_id: the run.
        step_id: the step.
        attempt: the attempt number, from 1.
        end: ``completed``, ``continued``, ``failed``, ``handed back``, ``run ended``,
            ``lease left to expire`` or ``still running``.
        checkpointed: whether the attempt has stored a checkpoint.
    """

    run_id: str
    step_id: str
    attempt: int
    end: str
    checkpointed: bool

    def __str__(self) -> str:
        kept = " with a checkpoint" if self.checkpointed and self.end == "handed back" else ""
        return f"{self.run_id}.{self.step_id} attempt {self.attempt}: {self.end}{kept}"


def line_of(attempt: Attempt) -> LedgerLine:
    """Say what became of an attempt."""
    return LedgerLine(
        run_id=attempt.task.run_id,
        step_id=attempt.task.step_id,
        attempt=attempt.task.number,
        end=_end(attempt),
        checkpointed=attempt.checkpointed,
    )


def _end(attempt: Attempt) -> str:
    """Return the word for an end; ``ELSEWHERE`` counts as stored, for the step has its outcome."""
    if attempt.verdict in {Verdict.STORED, Verdict.ELSEWHERE}:
        if isinstance(attempt.outcome, Completed):
            return "completed"
        return "continued" if isinstance(attempt.outcome, Continued) else "failed"
    if attempt.state is not State.ENDED and not attempt.over:
        return "still running"
    return ENDINGS[attempt.reason].word if attempt.reason is not None else "handed back"
