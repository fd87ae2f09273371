"""What events of steps do to a run (contract 6.3, 6.4, 6.6). Pure.

The DagNats engine believes late and stale events (contract H19); here an event counts only for a
step that is still going, and a failure only for the attempt that was dispatched last.

A step that a worker does, as its events move it::

    status            event                   status afterwards
    ----------------  ----------------------  ---------------------------------------------------
    queued            step.started            running; its timeout begins
    queued, running   step.completed          completed; what depends on it can go
    queued, running   step.continue           queued once more, a loop's next iteration; or failed,
                                              if that is beyond its bounds
    queued, running   step.failed, or the     running while the timer of its retry waits, if the
                      step's timeout          policy allows one; else failed, see ``recovery``
    any other         any                     as it was: the event is late, or nobody's

``step.completed`` and ``step.failed`` are taken in ``queued``, too: ``step.started`` may come late
or be lost, and an outcome proves that the step has begun.

Which failure counts? One of an earlier attempt is stale, and so is every failure while the step
waits for a retry: that retry has been decided already, and a second decision would skip an attempt.
A completion is taken from any attempt, as the DagNats engine does: the work is done, whoever did
it.
"""

from pydantic import BaseModel, ConfigDict

from trio_dagnats.local.engine.core import maps, planner
from trio_dagnats.local.engine.core.dispatch import dispatch
from trio_dagnats.local.engine.core.draft import Draft
from trio_dagnats.local.engine.core.recovery import (
    carry_on,
    fail,
)
from trio_dagnats.local.engine.core.state import (
    Action,
    Timer,
    split_instance,
)
from trio_dagnats.wire.definitions.steps import StepDef, StepType
from trio_dagnats.wire.events import (
    MAX_RETRY_AFTER_MS,
    MIN_RETRY_AFTER_MS,
    EventType,
    FailureType,
    HistoryEvent,
    timeout_payload,
)
from trio_dagnats.wire.run import ZERO_TIME, StepState, StepStatus
from trio_dagnats.wire.text import NS, UNKNOWN_ERROR, compact, parse_rfc3339, rfc3339, whole

MS = 1_000_000
MAX_TIMEOUT_NS = 86_400 * NS
"""The longest timeout of a step, 24 h (contract 6.5); a longer one is cut to it."""


class _Failure(BaseModel):
    """The payload of ``step.failed``.

    Only ``error`` is required. Without a type it is retriable, as with the DagNats engine, so that
    a worker in another language that sends the error alone gets its retries.
    """

    model_config = ConfigDict(extra="ignore")

    error: str
    failure_type: FailureType = FailureType.RETRIABLE
    retry_after_ms: int = 0


def started(draft: Draft, event: HistoryEvent) -> None:
    """Take ``step.started``: the step runs, and its timeout begins.

    The number of attempts only grows, and redeliveries of one attempt repeat its number, so they
    neither spend a retry nor begin the timeout again: the timer's id has that number in it, and
    a timer that runs is left as it is. Time that a task spent in the queue does not count.

    ``step.started`` of an instance of a map names no step and changes nothing, as with the DagNats
    engine: an instance has neither attempts nor a timeout of its own.
    """
    if not draft.is_going(event.step_id):
        return
    step = draft.definition.step(event.step_id)
    attempts = max(draft.steps[step.id].attempts, event.attempt_number or 1)
    state = draft.change(step.id, status=StepStatus.RUNNING, attempts=attempts)
    if step.timeout:
        # The iteration is ours: with the DagNats engine's ids the timeout of an earlier iteration
        # ends a later one (contract H13).
        loop = (f"i{state.iterations}",) if state.iterations else ()
        timer = draft.id(step.id, Action.STEP_TIMEOUT.value, attempts, *loop)
        timeout = min(step.timeout, MAX_TIMEOUT_NS)
        draft.start_timer(timer, Action.STEP_TIMEOUT, timeout, step.id, attempts)


def completed(draft: Draft, event: HistoryEvent) -> None:
    """Take ``step.completed``: keep the output and go on.

    A planner's output is its plan: if that is no good the step fails after all, and the run with
    it, without a retry.
    """
    instance = split_instance(event.step_id)
    if instance is not None:
        maps.completed(draft, *instance, event.payload)
    elif draft.is_going(event.step_id):
        draft.complete(event.step_id, event.payload)
        problem = ""
        if draft.definition.step(event.step_id).type is StepType.PLANNER:
            problem = planner.materialize(draft, event.step_id, event.payload)
        if problem:
            draft.fail_step(event.step_id, problem)
        else:
            carry_on(draft, event.step_id)


def failed(draft: Draft, event: HistoryEvent) -> None:
    """Take ``step.failed``: retry as the policy says, or fail the run.

    The step's timers go in any case, the timeout among them. While it waits for its retry the
    step is ``running``, not ``queued``: readers of runs know it so from the DagNats engine.
    """
    failure = read_failure(event.payload)
    instance = split_instance(event.step_id)
    if instance is not None:
        maps.failed(draft, *instance, failure.error)
        return
    if not draft.is_going(event.step_id) or _is_stale(draft, event):
        return
    step = draft.definition.step(event.step_id)
    draft.drop_timers(step.id)
    state = draft.change(step.id, status=StepStatus.RUNNING, error=failure.error)
    if not _retry(draft, step, failure, max(state.attempts, 1)):
        fail(draft, step.id, failure.error)


def timed_out(draft: Draft, timer: Timer) -> None:
    """Take a step's timeout; what the history is told of it is stale when it comes back.

    The failure is applied here and now, as an event that nobody has sent. The message that tells
    the history is stored later and comes back as an event of its own; by then the step waits for
    its retry or is over, so it changes nothing.
    """
    limit = draft.definition.step(timer.step_id).timeout
    failed(
        draft,
        HistoryEvent(
            type=EventType.STEP_FAILED,
            run_id=draft.run.run_id,
            step_id=timer.step_id,
            payload=compact(timeout_payload(limit)),
            attempt_number=timer.number,
        ),
    )


def continued(draft: Draft, event: HistoryEvent, msg_id: str) -> None:
    """Take ``step.continue``: the next iteration, within the loop's bounds.

    Each continue is one iteration, and a crash of the worker between its continue and its ACK
    sends the same one again. It is known by the iteration in its message id, not by the server's
    window for duplicates, which is five seconds long (contract H14).

    The bounds are checked before the next task is sent, so a loop of ``max_iterations`` runs its
    handler that often, and the last time must complete. A bound that is reached fails the run
    without a retry: another attempt would begin at the same count.
    """
    if not draft.is_going(event.step_id) or _is_old_continue(draft, event, msg_id):
        return
    step = draft.definition.step(event.step_id)
    if step.type is not StepType.AGENT_LOOP:  # anybody may write such an event
        return
    state = draft.steps[step.id]
    begun = rfc3339(draft.now_ns) if state.loop_started_at == ZERO_TIME else state.loop_started_at
    state = draft.change(step.id, iterations=state.iterations + 1, loop_started_at=begun)
    draft.drop_timers(step.id)
    problem = _loop_problem(draft, step, state)
    if problem:
        draft.fail_step(step.id, problem)
        return
    draft.change(step.id, status=StepStatus.QUEUED)
    if step.loop.loop_delay:
        timer = draft.id(step.id, Action.LOOP_DELAY.value, state.iterations)
        draft.start_timer(timer, Action.LOOP_DELAY, step.loop.loop_delay, step.id)
    else:
        dispatch(draft, step, draft.id(step.id, "continue", state.iterations))


def read_failure(payload: bytes) -> _Failure:
    """Read a failure; a bare string, or anything unreadable, is a retriable one.

    A text in quotes loses them; an empty error becomes the payload as it is.
    """
    try:
        found = _Failure.model_validate_json(payload)
    except ValueError:
        text = payload.decode(errors="replace").strip('"')
        return _Failure(error=text or UNKNOWN_ERROR)
    return found if found.error else _Failure(error=payload.decode(errors="replace"))


def _is_stale(draft: Draft, event: HistoryEvent) -> bool:
    """Say whether a failure is not of the attempt that is going on now.

    A worker's number is compared with what was dispatched, because its payload repeats the
    task's. An engine's own (no ``worker_id``) is compared with what was counted as well: a
    timeout is armed by ``step.started``, whose number may be higher than that of the task.
    """
    if draft.waits_for(event.step_id, Action.RETRY_BACKOFF, Action.RETRY_AFTER):
        return True
    number = event.attempt_number or 0
    if number and not event.worker_id:  # our own: a timeout, which says the attempt as we count it
        newest = max(draft.steps[event.step_id].attempts, draft.dispatched.get(event.step_id, 0))
        return number < newest
    return number < draft.dispatched.get(event.step_id, 0)


def _retry(draft: Draft, step: StepDef, failure: _Failure, attempt: int) -> bool:
    """Begin a retry if there may be one; say whether it has begun.

    ``max_attempts`` counts retries, not attempts (contract 6.4). While a run undoes itself its
    ordinary steps get none: their outcome is no longer wanted. Handlers do. A delay that the worker
    asked for goes before the policy's formula, within the bounds of the wire, 100 ms to 1 h.
    """
    policy = draft.definition.retry_of(step)
    final = failure.failure_type is FailureType.NON_RETRIABLE
    undoing = draft.trigger and step.id not in draft.handling
    if final or undoing or policy is None or attempt > policy.max_attempts:
        return False
    if failure.failure_type is FailureType.RETRY_AFTER:
        action = Action.RETRY_AFTER
        wanted = failure.retry_after_ms or MIN_RETRY_AFTER_MS
        delay_ns = min(max(wanted, MIN_RETRY_AFTER_MS), MAX_RETRY_AFTER_MS) * MS
    else:
        action, delay_ns = Action.RETRY_BACKOFF, policy.delay_ns(attempt)
    timer = draft.id(step.id, action.value, attempt)
    draft.start_timer(timer, action, delay_ns, step.id, attempt)
    return True


def _is_old_continue(draft: Draft, event: HistoryEvent, msg_id: str) -> bool:
    """Say whether this iteration has continued already: a second one forks the loop (H14).

    An id that has another form, from another worker, proves nothing and is taken as a new
    iteration.
    """
    head = f"{event.run_id}.{event.step_id}.continue."
    iteration = msg_id.removeprefix(head).partition(".")[0]
    number = whole(iteration) if msg_id.startswith(head) else None
    return number is not None and number < draft.steps[event.step_id].iterations


def _loop_problem(draft: Draft, step: StepDef, state: StepState) -> str:
    """Say which bound of a loop is reached, empty if none is.

    ``max_duration`` counts from the first continue, not from the first task: before that there is
    no time to count from in the snapshot (contract 6.6).
    """
    if state.iterations >= step.loop.max_iterations:
        return f"agent loop exceeded max iterations ({step.loop.max_iterations})"
    most = step.loop.max_duration
    if most and draft.now_ns - parse_rfc3339(state.loop_started_at) > most:
        return f"agent loop exceeded max duration ({most / NS:g}s)"
    return ""
