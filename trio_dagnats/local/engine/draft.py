"""A run while one event is applied to it: the working copy of the core's rules."""

import base64
from collections.abc import Callable
from typing import final

from trio_dagnats.local.engine.state import ENDED, Action, Book, Effect, Kind, RunState, Timer
from trio_dagnats.wire.run import RunStatus, StepState, StepStatus, WorkflowRun
from trio_dagnats.wire.steps import StepDef
from trio_dagnats.wire.text import rfc3339
from trio_dagnats.wire.workflow import WorkflowDef

MS = 1_000_000


@final
class Draft:
    """A copy of a run that the rules change; :meth:`done` makes it a state again.

    Args:
        state: the run as it stands; untouched.
        now_ns: the time of the event.
        nonce: makes dispatch nonces.
    """

    def __init__(self, state: RunState, now_ns: int, nonce: Callable[[], str]) -> None:
        self.definition: WorkflowDef = state.book.definition
        self.run: WorkflowRun = state.run
        self.steps: dict[str, StepState] = dict(state.run.steps)
        self.timers: dict[str, Timer] = dict(state.book.timers)
        self.dispatched: dict[str, int] = dict(state.book.dispatched)
        self.effects: list[Effect] = []
        self.now_ns = now_ns
        self.nonce = nonce
        self._touched = False
        self._before = state
        self._status = state.run.status
        self._completed_at = state.run.completed_at

    @property
    def is_over(self) -> bool:
        """Whether the run has ended."""
        return self._status.is_terminal

    def done(self, *, applied: int, cause: str) -> RunState:
        """Return the new state; the old one itself if nothing has changed."""
        if not self._touched:
            return self._before
        run = self.run.model_copy(
            update={
                "steps": self.steps,
                "status": self._status,
                "completed_at": self._completed_at,
            }
        )
        book = Book.model_construct(
            definition=self.definition,
            applied=applied,
            cause=cause,
            at_ns=self.now_ns,
            outbox=tuple(self.effects),
            timers=self.timers,
            dispatched=self.dispatched,
        )
        return RunState.model_construct(run=run, book=book)

    def change(self, step_id: str, **changes: object) -> StepState:
        """Change a step; return it."""
        self._touched = True
        state = self.steps[step_id].model_copy(update=changes)
        self.steps[step_id] = state
        return state

    def complete(self, step_id: str, payload: bytes) -> None:
        """Complete a step with an output's JSON, empty for none."""
        output = base64.b64encode(payload).decode()
        self.change(step_id, status=StepStatus.COMPLETED, output=output)
        self.drop_timers(step_id)

    def emit(self, kind: Kind, msg_id: str, **fields: object) -> None:
        """Add something to send."""
        self._touched = True
        self.effects.append(Effect.model_validate({"kind": kind, "msg_id": msg_id, **fields}))

    def id(self, *parts: object) -> str:
        """Build a message id of this run."""
        return ".".join([self.run.run_id, *map(str, parts)])

    def dispatch(self, step: StepDef, msg_id: str, *, number: int = 0) -> None:
        """Send a step's task, under a nonce of its own."""
        state = self.change(step.id, dispatch_nonce=self.nonce())
        self.dispatched[step.id] = number
        self.emit(Kind.TASK, msg_id, step_id=step.id, number=number, nonce=state.dispatch_nonce)

    def start_timer(
        self, msg_id: str, action: Action, duration_ns: int, step_id: str = "", number: int = 0
    ) -> None:
        """Start a timer; one that runs already stays as it is."""
        if msg_id in self.timers:
            return
        self.timers[msg_id] = Timer(action=action, step_id=step_id, number=number)
        self.emit(
            Kind.TIMER,
            msg_id,
            step_id=step_id,
            action=action,
            number=number,
            duration_ms=max(1, duration_ns // MS),
        )

    def drop_timers(self, step_id: str) -> None:
        """Forget a step's timers: their messages do nothing when they come."""
        self.timers = {i: t for i, t in self.timers.items() if t.step_id != step_id}

    def waits_for_retry(self, step_id: str) -> bool:
        """Say whether a retry of the step is on its way."""
        retries = {Action.RETRY_BACKOFF, Action.RETRY_AFTER}
        return any(t.step_id == step_id and t.action in retries for t in self.timers.values())

    def end(self, status: RunStatus) -> None:
        """End the run; tell the history unless it was the history that told us."""
        self._touched = True
        self._status = status
        self._completed_at = rfc3339(self.now_ns)
        self.timers = {}
        if status in ENDED:
            self.emit(Kind.RUN_ENDED, self.id(ENDED[status].value))

    def fail_step(self, step_id: str, error: str) -> None:
        """Fail a step for good, and the run with it."""
        self.change(step_id, status=StepStatus.FAILED, error=error)
        self.end(RunStatus.FAILED)
