"""The first look at a delivery: is it a task, and is there anything left to do for it?

A first delivery that is young costs no request at all. A redelivery reads what happened before:
the history of its dispatch, the run's status, the attempt note, a loop's checkpoint. In this order,
the first that holds decides:

| what is found | read | the table's input | what follows |
|---|---|---|---|
| no task, no run or step in it | - | ``NOT_A_TASK`` | kept, TERM |
| no task, but both | - | ``NOT_A_TASK_WITH_IDS`` | kept, ``step.failed``, ACK |
| older than 1 s or redelivered, and its run is over | the run | ``RUN_CANCELLED_BEFORE`` | ACK |
| (a first delivery ends here) | - | ``READY`` | it begins |
| its outcome is there, or the engine timed it out | the history | ``ALREADY_SETTLED`` | ACK |
| a loop's state of this dispatch is stored | the checkpoint | ``CONTINUE_MISSING`` | its event |
| started too often, and got no further | history, note | ``KILLED_TOO_OFTEN`` | ``step.failed`` |
| nothing of all that | - | ``READY`` | it begins |

Called by ``execute.until_handler``, in the attempt's task; :func:`parse` by ``admission`` too, and
:func:`asks_for_status` and :func:`is_over` by ``fast_path``, which may not wait.

What cannot be read: an unknown run counts as alive, for skipping a task of a run that lives would
hang that for good. The history is another matter: without it a handler could run again whose
outcome is there already, so the error is raised, and the task handed back.
"""

import trio

from trio_dagnats.attempt.life import Input
from trio_dagnats.attempt.loop_state import read_state
from trio_dagnats.attempt.outcome import Continued, Failed
from trio_dagnats.attempt.past import Past, killed_too_often, read_past, too_often_text
from trio_dagnats.errors import BrokerError, Missing
from trio_dagnats.logs import Log
from trio_dagnats.wire.events import FailureType
from trio_dagnats.wire.names import BUCKET_WORKER_STATUS, WORKFLOW_HISTORY, history_subject
from trio_dagnats.wire.registration import status_body
from trio_dagnats.wire.task import NO_TASK, NotATask, parse_task, stand_in
from trio_dagnats.wire.text import NS
from trio_dagnats.worker.attempts.attempt import Attempt
from trio_dagnats.worker.deadlines import FAREWELL
from trio_dagnats.worker.engine.facts import CANCELLED, RunFacts
from trio_dagnats.worker.telemetry import CANCELLED_SKIPPED, count

log = Log("trio_dagnats.worker")

YOUNG_NS = NS
"""A first delivery younger than this is not checked for a cancelled run (design 8.5)."""
TERMINAL = frozenset({CANCELLED, "completed", "failed", "compensated", "compensate_failed"})


def parse(attempt: Attempt) -> Input | None:
    """Parse the message, once if it is a task; the table's input if it is none, else None.

    A message that is no task but names its run and step gets a stand-in for one, so that the step
    can be failed: nobody would ever answer for it otherwise (contract H4).
    """
    if attempt.task is not NO_TASK and not attempt.complaint:
        return None
    try:
        attempt.task = parse_task(attempt.delivery.body)
    except NotATask as error:
        attempt.complaint = str(error)
        if not (error.run_id and error.step_id):
            return Input.NOT_A_TASK
        attempt.task = stand_in(error)
        attempt.outcome = Failed(
            kind=FailureType.NON_RETRIABLE, error=f"the task message cannot be read: {error}"
        )
        return Input.NOT_A_TASK_WITH_IDS
    attempt.iteration = attempt.task.iteration
    attempt.delivery.body = b""  # the task has all of it: a large input is not held twice
    return None


async def examine(attempt: Attempt) -> Input:
    """Say what is left to do for a task.

    Raises:
        BrokerError: the history, the note or the checkpoint could not be read.
    """
    redelivered = attempt.delivery.deliveries > 1
    if (redelivered or asks_for_status(attempt)) and await _run_is_over(attempt):
        return Input.RUN_CANCELLED_BEFORE
    if not redelivered:
        return Input.READY
    return await _after_redelivery(attempt)


def asks_for_status(attempt: Attempt) -> bool:
    """Say whether a task has waited so long that its run may be over, and that can be read.

    By the server's time of storing and this machine's clock: a clock that is wrong costs a read for
    each task, or leaves the discovery to the run watch.
    """
    shared = attempt.shared
    age_ns = shared.broker.time_ns() - attempt.delivery.published_ns
    return age_ns > YOUNG_NS and not shared.facts.keeps_no_runs(attempt.delivery.received_at)


async def _run_is_over(attempt: Attempt) -> bool:
    """Skip the tasks of cancelled runs, and loop iterations of ended ones (contract H14)."""
    if not is_over(attempt, await attempt.shared.facts.run(attempt.run_id)):
        return False
    await _count_skipped(attempt)
    return True


def is_over(attempt: Attempt, run: RunFacts) -> bool:
    """Say whether a run has no use for this task any more.

    Any task of a cancelled run; of a run that has ended otherwise only a loop's later iteration,
    which the engine dispatches for a continue even then. What else such a run has in the queue is
    given to its handler.
    """
    return run.status == CANCELLED or bool(attempt.task.iteration and run.status in TERMINAL)


async def _count_skipped(attempt: Attempt) -> None:
    shared = attempt.shared
    shared.skipped += 1
    count(shared.telemetry, CANCELLED_SKIPPED, 1)
    log.info("%s: skipped, its run is over", attempt.label, extra=attempt.log_fields)
    try:
        await shared.broker.kv_put(
            BUCKET_WORKER_STATUS,
            shared.worker_id,
            status_body(shared.worker_id, shared.skipped),
            deadline=trio.current_time() + FAREWELL,
        )
    except BrokerError:  # best effort, as the Go worker does it (contract 5, step 4)
        log.debug("worker_status not written", exc_info=True)


async def _after_redelivery(attempt: Attempt) -> Input:
    """Read what the deliveries before this one have done.

    What the history has last is what the outcome's condition begins with (``known_sequence``).
    """
    past = await _read_history(attempt)
    attempt.known_sequence = past.last_sequence
    if past.settled or past.timed_out:
        return Input.ALREADY_SETTLED
    memory = attempt.memory
    await memory.read()
    memory.take_up(past.starts)
    if attempt.program.loop and await _own_state_is_stored(attempt):
        return Input.CONTINUE_MISSING
    if killed_too_often(past, memory.note):
        error = too_often_text(past, memory.note)
        attempt.outcome = Failed(kind=FailureType.NON_RETRIABLE, error=error)
        return Input.KILLED_TOO_OFTEN
    return Input.READY


async def _read_history(attempt: Attempt) -> Past:
    """Read the run's history from the task's time of storing on; what is older is not about it."""
    try:
        records = await attempt.shared.broker.records(
            WORKFLOW_HISTORY,
            history_subject(attempt.run_id),
            since_ns=attempt.published_ns,
            deadline=attempt.lease_until,
        )
    except Missing:
        records = []
    return read_past(records, attempt.task, attempt.dispatch)


async def _own_state_is_stored(attempt: Attempt) -> bool:
    """Say whether this dispatch's state was committed before its worker ended (design 8.9).

    Then the handler must not run again: only its continue is missing, and the outcome is set here.
    The number is that of the iteration that wrote the state, one before the stored one.
    """
    stored = read_state(await attempt.shared.store.load_checkpoint(attempt.task))
    if stored is None or stored.dispatch != attempt.dispatch:
        return False
    attempt.iteration = stored.iteration - 1
    attempt.outcome = Continued(b"")
    return True
