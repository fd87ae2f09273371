"""A run while one event is applied to it: the working copy of the core's rules.

Models are frozen, and one transition may change a run in many places. So a draft takes the parts
of a state out into plain attributes once, the rules change those, and :meth:`Draft.done` puts a
state together again.

Who may write: the rules in this room, during one transition. A draft never leaves the room and
never outlives the call that made it; what the shell sees are states.
"""

import base64
from collections.abc import Callable
from typing import final

from trio_dagnats.local.engine.core.state import (
    CANCEL,
    ENDED,
    Action,
    Effect,
    EngineRecord,
    Kind,
    RunState,
    Timer,
)
from trio_dagnats.local.engine.core.values.paths import wanted
from trio_dagnats.wire.definitions.steps import StepDef, StepType
from trio_dagnats.wire.definitions.workflow import WorkflowDef
from trio_dagnats.wire.events import EventType
from trio_dagnats.wire.run import RunStatus, StepState, StepStatus, WorkflowRun
from trio_dagnats.wire.text import rfc3339

MS = 1_000_000
GOING = frozenset({StepStatus.QUEUED, StepStatus.RUNNING})
"""A step that waits for its retry, for a slot or for its turn is among them: it has begun and is
not over. ``pending`` is not, ``failed`` with a handler that runs is not either.
"""
TASKS = frozenset({Kind.TASK, Kind.MAP_TASKS})
"""Effects that reach workers; :meth:`Draft.done` and ``transitions.join`` put them last."""


@final
class Draft:
    """A copy of a run that the rules change; :meth:`done` makes it a state again.

    Attributes that rules change directly (``steps``, ``timers``, ``dispatched``, ``handling``,
    ``undone``, ``trigger``, ``slots``) mean what they mean in :class:`Book`. Assigning to one of
    them does not mark the draft as changed; :meth:`change`, :meth:`emit`, :meth:`begin` and
    :meth:`end` do, and no rule gets by without one of these.

    Message ids are built by :meth:`id`. They are what keeps a message that is sent twice from
    counting twice, so each has to be the same whenever the same thing is sent, and another one for
    another:

    =====================================  ====================================================
    ``<run>.<step>.queued``                a step's first task
    ``<run>.<step>.queued.<n>``            a handler's task, started once more
    ``<run>.<step>.map.<i>.queued``        the task of an instance of a map
    ``<run>.<step>.<action>.<attempt>``    a retry: its timer, and the task that it lets go
    ``<run>.<step>.continue.<iteration>``  the task of a loop's next iteration
    ``<run>.<step>.step_timeout.<n>``      a timeout; in a loop with ``.i<iteration>`` behind it
    ``<run>.<step>.task_slot``             a slot: its key in the bucket, and its grant
    ``<run>.run_slot``                     the same for the run as a whole
    ``<task's id>.rate_retry``             a task's turn under the rate limit
    =====================================  ====================================================

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
        """Whether the run has ended.

        The draft's own status, which may be newer than ``run.status``: rules look here, because an
        earlier rule of the same transition may have ended the run.
        """
        return self._status.is_terminal

    def is_going(self, step_id: str) -> bool:
        """Say whether there is such a step, and it is queued or runs."""
        state = self.steps.get(step_id)
        return state is not None and state.status in GOING

    def peek(self) -> RunState:
        """Return the run as it stands in this draft.

        Cheap, and not validated: the parts are valid already. The dictionaries are the draft's own
        and not copies, so what it returns is for looking at once and must not be kept. The outbox,
        ``applied`` and the causes are left out; no rule needs them.
        """
        run = self.run.model_copy(
            update={
                "steps": self.steps,
                "status": self._status,
                "completed_at": self._completed_at,
            }
        )
        book = EngineRecord.model_construct(
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
        """Return the new state; the old one itself if nothing has changed.

        Called once, at the end of a transition. The state that it was made from stays as it was, so
        a transition that turns out to be too large to be stored can simply be dropped.

        ``causes`` and ``outbox`` replace those of the state before. That is safe because the shell
        sends everything that a saved state has to send before it saves the next one: only the
        newest outbox can be unsent.

        Args:
            applied: the history sequence that the new state has seen.
            cause: what it answers: a history sequence, or a timer's id.
        """
        if not self._touched:
            return self._before
        found = self.peek()
        # Tasks last, as they should reach the server: what they answer ought to find the
        # announcements of their steps in the history. The sender stores messages side by side, so
        # today this order is a wish.
        outbox = tuple(sorted(self.effects, key=lambda effect: effect.kind in TASKS))
        update = {"applied": applied, "causes": (cause,), "outbox": outbox}
        return RunState.model_construct(run=found.run, book=found.book.model_copy(update=update))

    def change(self, step_id: str, **changes: object) -> StepState:
        """Change a step; return it.

        ``changes`` are fields of :class:`StepState`; they are not validated, so a rule has to give
        values of the right type.
        """
        self._touched = True
        state = self.steps[step_id].model_copy(update=changes)
        self.steps[step_id] = state
        return state

    def complete(self, step_id: str, payload: bytes) -> None:
        """Complete a step with an output's JSON, empty for none.

        Only marks it and frees what it held. What may go on now is ``recovery.carry_on``'s
        business, or ``ready.advance``'s, which the caller calls afterwards: a planner must add its
        steps in between.
        """
        output = base64.b64encode(payload).decode()
        self.change(step_id, status=StepStatus.COMPLETED, output=output)
        self.let_go(step_id)

    def emit(self, kind: Kind, msg_id: str, **fields: object) -> None:
        """Add something to send.

        The same effect twice is two messages with one id, of which the server keeps the first.
        """
        self._touched = True
        self.effects.append(Effect.model_validate({"kind": kind, "msg_id": msg_id, **fields}))

    def id(self, *parts: object) -> str:
        """Build a message id of this run."""
        return ".".join([self.run.run_id, *map(str, parts)])

    def start_timer(
        self, msg_id: str, action: Action, duration_ns: int, step_id: str = "", number: int = 0
    ) -> None:
        """Start a timer; one that runs already stays as it is.

        The timer stands in the book, and a message on ``sleep.>`` wakes the engine when it is due.
        Both are needed: without the message nobody would look, and without the entry in the book a
        message that is delivered late or twice could not be told from one that still counts.

        Durations are nanoseconds here and whole milliseconds on the wire, at least 1.
        """
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
        """Forget a step's timers: their messages do nothing when they come.

        Nothing is taken back on the server. That would be another request per step, and could fail;
        a message that finds no timer in the book costs one delivery instead.
        """
        self.timers = {i: t for i, t in self.timers.items() if t.step_id != step_id}

    def waits_for(self, step_id: str, *actions: Action) -> bool:
        """Say whether such a timer of the step is running."""
        return any(t.step_id == step_id and t.action in actions for t in self.timers.values())

    def take_slot(self, slot: str) -> None:
        """Note that the run holds a slot, or waits for it.

        Whether it holds or waits is known to the shell's ``Slots`` alone. The run only has to know
        that there is something to give back at its end.
        """
        self.slots = (*self.slots, slot)

    def let_go(self, step_id: str) -> None:
        """Forget what a step that is over was waiting for, and free its slot."""
        self.drop_timers(step_id)
        self._free(self.id(step_id, Action.TASK_SLOT.value))

    def begin(self) -> None:
        """Let the run begin: its deadline counts from now.

        Called when the run starts without a limit, or when its slot has come. ``max_runs`` does not
        count against the timeout, as the deadline is set here and not in ``transitions.start``.
        """
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
        """End the run; tell the history unless it was the history that told us, and the parent.

        In this order: what was asked of others for steps that are going is taken back (waiters,
        approval tokens, children), the waiters of ``cancel_on`` and the singleton's lock go, all
        timers are forgotten, the history and the parent are told, slots are freed. Nothing reaches
        workers: they learn of the end from the history (their run watch), and their late events are
        ignored.

        ``error`` is told to the parent only; in the snapshot it stands at the step that failed.
        Steps that are going keep their status, so that the snapshot shows where a failed run stood;
        only a cancellation marks them, before it calls this.
        """
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
        """Fail a step for good, and the run with it.

        Without retry, handler or compensation: for what no second try could better, such as an
        input that is no list. Failures of handlers go through ``recovery.fail``.
        """
        self.change(step_id, status=StepStatus.FAILED, error=error)
        self.end(RunStatus.FAILED, error)

    def cancel_step(self, step: StepDef) -> None:
        """Cancel a step, and what the engine does for it.

        The step alone; the run goes on, as when a compensation begins.
        """
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
        """Tell the run that waits for this one's end; a run without a parent never gets here.

        An end other than ``completed`` is a failure to the parent, with the error as text, or the
        status where there is none. The output is in neither the effect nor the event: the shell
        takes it from the child's snapshot when the event comes.
        """
        good = status is RunStatus.COMPLETED
        kind = EventType.CHILD_COMPLETED if good else EventType.CHILD_FAILED
        msg_id = f"{self.run.parent_run_id}.{self.run.parent_step_id}.{kind.value}"
        text = "" if good else error or status.value
        self.emit(Kind.PARENT_TOLD, msg_id, text=text)

    def _free(self, slot: str) -> None:
        """Give a slot back, or the place in the line for one.

        One that the run does not have is ignored, so a step can be let go without a look at whether
        it was ever limited.
        """
        if slot in self.slots:
            self.slots = tuple(s for s in self.slots if s != slot)
            self.emit(Kind.SLOT_FREED, slot, text=slot)
