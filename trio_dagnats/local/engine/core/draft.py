"""A run while one event is applied to it: the working copy of the core's rules."""

import base64
from collections.abc import Callable
from typing import final

from trio_dagnats.local.engine.core.state import (
    CANCEL,
    ENDED,
    Action,
    Book,
    Effect,
    Kind,
    RunState,
    Timer,
)
from trio_dagnats.local.engine.core.values.paths import wanted
from trio_dagnats.wire.events import EventType
from trio_dagnats.wire.run import RunStatus, StepState, StepStatus, WorkflowRun
from trio_dagnats.wire.steps import StepDef, StepType
from trio_dagnats.wire.text import rfc3339
from trio_dagnats.wire.workflow import WorkflowDef

MS = 1_000_000
GOING = frozenset({StepStatus.QUEUED, StepStatus.RUNNING})
TASKS = frozenset({Kind.TASK, Kind.MAP_TASKS})


@final
class Draft:
    """A copy of a run that the rules change; :meth:`done` makes it a state again.

    Args:
        state: the run as it stands; untouched.
        now_ns: the time of the event.
        nonce: makes dispatch nonces and ids of children.
    """

    def __init__(self, state: RunState, now_ns: int, nonce: Callable[[], str]) -> None:
        book = state.book
        self.definition: WorkflowDef = book.definition
        self.run: WorkflowRun = state.run
        self.steps: dict[str, StepState] = dict(state.run.steps)
        self.timers: dict[str, Timer] = dict(book.timers)
        self.dispatched: dict[str, int] = dict(book.dispatched)
        self.handling: dict[str, str] = dict(book.handling)
        self.undone: tuple[str, ...] = book.undone
        self.trigger: str = book.trigger
        self.slots: tuple[str, ...] = book.slots
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

    def is_going(self, step_id: str) -> bool:
        """Say whether there is such a step, and it is queued or runs."""
        state = self.steps.get(step_id)
        return state is not None and state.status in GOING

    def peek(self) -> RunState:
        """Return the run as it stands in this draft."""
        run = self.run.model_copy(
            update={
                "steps": self.steps,
                "status": self._status,
                "completed_at": self._completed_at,
            }
        )
        book = Book.model_construct(
            definition=self.definition,
            at_ns=self.now_ns,
            timers=self.timers,
            dispatched=self.dispatched,
            handling=self.handling,
            undone=self.undone,
            trigger=self.trigger,
            slots=self.slots,
        )
        return RunState.model_construct(run=run, book=book)

    def done(self, *, applied: int, cause: str) -> RunState:
        """Return the new state; the old one itself if nothing has changed."""
        if not self._touched:
            return self._before
        found = self.peek()
        # Tasks last: what they answer must find the announcements of their steps in the history.
        outbox = tuple(sorted(self.effects, key=lambda effect: effect.kind in TASKS))
        update = {"applied": applied, "causes": (cause,), "outbox": outbox}
        return RunState.model_construct(run=found.run, book=found.book.model_copy(update=update))

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
        self.let_go(step_id)

    def emit(self, kind: Kind, msg_id: str, **fields: object) -> None:
        """Add something to send."""
        self._touched = True
        self.effects.append(Effect.model_validate({"kind": kind, "msg_id": msg_id, **fields}))

    def id(self, *parts: object) -> str:
        """Build a message id of this run."""
        return ".".join([self.run.run_id, *map(str, parts)])

    def start_timer(
        self, msg_id: str, action: Action, duration_ns: int, step_id: str = "", number: int = 0
    ) -> None:
        """Start a timer; one that runs already stays as it is."""
        if msg_id in self.timers:
            return
        due_ns = self.now_ns + duration_ns
        timer = Timer(action=action, step_id=step_id, number=number, due_ns=due_ns)
        self.timers[msg_id] = timer
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

    def waits_for(self, step_id: str, *actions: Action) -> bool:
        """Say whether such a timer of the step is running."""
        return any(t.step_id == step_id and t.action in actions for t in self.timers.values())

    def take_slot(self, slot: str) -> None:
        """Note that the run holds a slot, or waits for it."""
        self.slots = (*self.slots, slot)

    def let_go(self, step_id: str) -> None:
        """Forget what a step that is over was waiting for, and free its slot."""
        self.drop_timers(step_id)
        self._free(self.id(step_id, Action.TASK_SLOT.value))

    def begin(self) -> None:
        """Let the run begin: its deadline counts from now."""
        self._touched = True
        self._status = RunStatus.RUNNING
        timeout = self.definition.timeout
        if timeout:
            self.run = self.run.model_copy(update={"deadline": rfc3339(self.now_ns + timeout)})
            # The DagNats engine looks at a deadline only when an event arrives (contract H27).
            timer = self.id(Action.RUN_TIMEOUT.value)
            self.start_timer(timer, Action.RUN_TIMEOUT, timeout)
        for who in self._cancelling():
            self.emit(Kind.WAITER, self.id(who, "waiter"), step_id=who)

    def end(self, status: RunStatus, error: str = "") -> None:
        """End the run; tell the history unless it was the history that told us, and the parent."""
        self._touched = True
        for step in self.definition.steps:
            if self.is_going(step.id):
                self._abandon(step)
        for who in self._cancelling() if self._status is RunStatus.RUNNING else ():
            self.emit(Kind.WAITER_GONE, self.id(who, "waiter"), step_id=who)
        if self.run.singleton_key:
            self.emit(Kind.LOCK_FREED, self.id("lock"), text=self.run.singleton_key)
        self._status = status
        self._completed_at = rfc3339(self.now_ns)
        self.timers = {}
        if status in ENDED:
            self.emit(Kind.RUN_ENDED, self.id(ENDED[status].value))
        if self.run.parent_run_id:
            self._tell_parent(status, error)
        for slot in self.slots:
            self._free(slot)

    def fail_step(self, step_id: str, error: str) -> None:
        """Fail a step for good, and the run with it."""
        self.change(step_id, status=StepStatus.FAILED, error=error)
        self.end(RunStatus.FAILED, error)

    def cancel_step(self, step: StepDef) -> None:
        """Cancel a step, and what the engine does for it."""
        self._abandon(step)
        self.change(step.id, status=StepStatus.CANCELLED)
        self.let_go(step.id)

    def _abandon(self, step: StepDef) -> None:
        """Take back what the engine has asked others for a step that is still going."""
        if step.type is StepType.WAIT_FOR_EVENT:
            self.emit(Kind.WAITER_GONE, self.id(step.id, "waiter"), step_id=step.id)
        elif step.type is StepType.APPROVAL:
            self.emit(Kind.APPROVAL_GONE, self.id(step.id, "token"), step_id=step.id)
        elif step.type is StepType.SUB_WORKFLOW:
            # With the DagNats engine only a cancellation reaches children; a failed parent's go on.
            child = self.steps[step.id].child_run_id
            msg_id = f"{child}.{EventType.WORKFLOW_CANCELLED.value}"
            self.emit(Kind.CHILD_CANCELLED, msg_id, step_id=step.id, text=child)

    def _cancelling(self) -> list[str]:
        """Return what the run waits with for events that cancel it."""
        state = self.peek() if self.definition.cancel_on else self._before
        found = enumerate(self.definition.cancel_on)
        return [f"{CANCEL}{number}" for number, one in found if wanted(one.match, state)[0]]

    def _tell_parent(self, status: RunStatus, error: str) -> None:
        good = status is RunStatus.COMPLETED
        kind = EventType.CHILD_COMPLETED if good else EventType.CHILD_FAILED
        msg_id = f"{self.run.parent_run_id}.{self.run.parent_step_id}.{kind.value}"
        text = "" if good else error or status.value
        self.emit(Kind.PARENT_TOLD, msg_id, text=text)

    def _free(self, slot: str) -> None:
        if slot in self.slots:
            self.slots = tuple(s for s in self.slots if s != slot)
            self.emit(Kind.SLOT_FREED, slot, text=slot)
