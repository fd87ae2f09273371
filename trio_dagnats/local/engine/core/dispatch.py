"""Letting tasks go: at once, or when a slot and the rate limit allow it (contract 6.2). Pure.

A limited task first waits for a slot of its task type, then for its turn under the rate limit;
both come back as timers. The DagNats engine looks at the rate first and polls for slots every
second. Here every dispatch counts against the rate, retries and iterations, too.

::

    dispatch ─► has max_task_concurrency, and no slot? ─yes─► SLOT_WANTED, Timer(TASK_SLOT)
                  │ no                                           │ ``Slots`` grants it: a message
                  ▼                                              ▼ on sleep.>, due at once
               has a rate limit? ◄───────────────────────── fire ─► go_on
                  │ no       └─yes─► RATE_WANTED, Timer(RATE_RETRY)
                  ▼                      │ ``Rates`` says when: a message on sleep.>
               TASK ◄──────────── fire ─► go_on

A slot is kept until the step is over: it is not given back while the step waits for a retry, or
between two iterations. A turn under the rate is for one task and is spent with it.

Both waits are timers of the book without a message of their own; the shell stores the message when
it knows the time. So whoever waits can be told like everybody else, whatever dies in between.
"""

from trio_dagnats.local.engine.core.draft import Draft
from trio_dagnats.local.engine.core.state import Action, Kind, Timer
from trio_dagnats.local.engine.core.values.inputs import input_of
from trio_dagnats.local.engine.core.values.paths import find, printed
from trio_dagnats.wire.definitions.steps import StepDef


def dispatch(draft: Draft, step: StepDef, msg_id: str, *, number: int = 0) -> None:
    """Send a step's task, under a nonce of its own.

    Args:
        draft: the run.
        step: the step.
        msg_id: the task's id; it also names its turn under a rate limit.
        number: the attempt that the task carries, 0 for a first one, which carries none. Failures
            of earlier numbers are stale from now on.
    """
    draft.change(step.id, dispatch_nonce=draft.nonce())
    draft.dispatched[step.id] = number
    dispatch_as(draft, step, step.id, msg_id, number)


def dispatch_as(draft: Draft, step: StepDef, who: str, msg_id: str, number: int = 0) -> None:
    """Send the task of a step or of an instance of a map, as soon as the limits allow it.

    An instance of a map has its own slot, and no nonce of its own in the run's state: it is made
    when the task is sent.
    """
    slot = draft.id(who, Action.TASK_SLOT.value)
    if step.max_task_concurrency and slot not in draft.slots:
        draft.take_slot(slot)
        _wait(draft, slot, Timer(action=Action.TASK_SLOT, step_id=who, number=number), msg_id)
        draft.emit(Kind.SLOT_WANTED, slot, step_id=who, action=Action.TASK_SLOT)
        return
    _ask_rate(draft, step, who, msg_id, number)


def go_on(draft: Draft, timer: Timer) -> None:
    """Go on with a task that has got its slot, or whose turn has come."""
    step, _ = draft.peek().step_and_index(timer.step_id)
    if timer.action is Action.TASK_SLOT:
        _ask_rate(draft, step, timer.step_id, timer.task_id, timer.number)
    else:
        _send(draft, timer.step_id, timer.task_id, timer.number)


def _ask_rate(draft: Draft, step: StepDef, who: str, msg_id: str, number: int) -> None:
    """Ask for a turn if there is a rate limit, else send.

    The key of a keyed limit is read from the step's input, printed so that 5 and "5" are one key.
    The shell decides when, for the tokens are shared by all runs and cannot be known here.
    """
    keyed = step.keyed_rate_limit
    if step.rate_limit is None and keyed is None:
        _send(draft, who, msg_id, number)
        return
    key = ""
    if keyed is not None:
        found, value = find(keyed.key, input_of(who, draft.peek()))
        if not found:
            # The DagNats engine tries such a dispatch until it gives the event up.
            draft.fail_step(step.id, f"the input has no {keyed.key!r}, the rate limit's key")
            return
        key = printed(value)
    turn = f"{msg_id}.{Action.RATE_RETRY.value}"
    _wait(draft, turn, Timer(action=Action.RATE_RETRY, step_id=who, number=number), msg_id)
    draft.emit(Kind.RATE_WANTED, turn, step_id=who, action=Action.RATE_RETRY, text=key)


def _wait(draft: Draft, timer_id: str, timer: Timer, task_id: str) -> None:
    """Note that a task waits for somebody else's decision; nobody knows yet when it is due."""
    draft.timers[timer_id] = timer.model_copy(update={"task_id": task_id})


def _send(draft: Draft, who: str, msg_id: str, number: int) -> None:
    """Emit the task itself, under the nonce that the step's state holds."""
    state = draft.steps.get(who)
    nonce = state.dispatch_nonce if state is not None else draft.nonce()
    draft.emit(Kind.TASK, msg_id, step_id=who, number=number, nonce=nonce)
